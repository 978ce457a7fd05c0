"""Runs a program as a worker's process: `python …/worker_main.py PROGRAM ARGS…`.

The process leads a group of its own. It holds one end of a pipe whose other end only its
launcher has (KARP_LEASH): when that closes, the launcher is gone, however it went, and the whole group goes too.
"""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of this file
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from karp.launch import program

    del sys.path[0]  # karp, once it is found, finds its parts
    program.main()
