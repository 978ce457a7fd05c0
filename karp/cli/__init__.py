"""The command line: `karp fit`, `predict`, `evaluate`, `show`; `launch`, `worker`, `replay`, `keys`, `simulate`.

    karp launch -n 4 --run-dir runs/a  program.py --epochs 5 -n 2
    options of the command             PROGRAM    its arguments, whatever they look like

The line is cut behind PROGRAM before argparse sees it (`cut`): to argparse `--epochs` might abbreviate an option of its
own, and `--` or an empty argument might mean something. An option of the command that stands there all the same is
handed on like any other, with a line that says so.

Exit statuses: 0, the command has done what it is for; 1, it has failed, or what it had to print could not be written;
2, it cannot be done as it was asked for; 128 and the signal's number where it was interrupted. `karp worker` ends with
its program's. A reader that has gone, of standard output or errors, changes none of them.
"""

from karp.cli.main import main, parse

__all__ = ["main", "parse"]
