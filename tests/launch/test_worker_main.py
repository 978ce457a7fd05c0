"""The main module of a worker's process: whom it belongs to, and with whom it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from running import PATIENCE, completed, environment, program

from karp.environment import LEASH
from karp.launch.processes import WORKER_MAIN


def test_it_leaves_nothing_of_karp_s_in_the_program_s_path(tmp_path: Path) -> None:
    path = program(tmp_path, "import sys\nprint(sys.path[0], [p for p in sys.path if 'launch' in p], sys.argv)")
    done = completed([sys.executable, WORKER_MAIN, str(path), "x"], tmp_path)
    assert (0, f"{tmp_path} [] {[str(path), 'x']}\n") == (done.returncode, done.stdout), done.stderr


def test_it_is_nothing_that_can_be_imported_by_chance(tmp_path: Path) -> None:
    before = sys.path[:]
    import karp.launch.worker_main

    assert before == sys.path
    assert not hasattr(karp.launch.worker_main, "program")


def test_it_ends_with_all_that_it_has_started_when_its_launcher_is_gone(tmp_path: Path) -> None:
    """However the launcher went: the system closes the pipe's other end."""
    text = "import subprocess\nchild = subprocess.Popen(['sleep', '999'])\nprint(child.pid, flush=True)\nchild.wait()"
    leash, held = os.pipe()
    with subprocess.Popen(
        [sys.executable, WORKER_MAIN, str(program(tmp_path, text))],
        env=environment(**{LEASH: str(leash)}), pass_fds=[leash], process_group=0, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        child = int(process.stdout.readline())
        os.kill(child, 0)
        os.close(held)
        assert -signal.SIGKILL == process.wait(PATIENCE)
        assert b"" == process.stdout.read()  # the child had it, too, and is gone
    os.close(leash)
