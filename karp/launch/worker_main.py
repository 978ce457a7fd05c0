"""The main module of a worker's process: `python …/worker_main.py PROGRAM ARGS…` runs the program.

The process leads a process group of its own. It holds one end of a pipe whose other end only its launcher has
(KARP_LEASH). When that end closes, the launcher has ended, and the process kills its group.
"""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of this file
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from karp.launch import program

    del sys.path[0]  # karp's own modules are found by its __path__ from here on
    program.main()
