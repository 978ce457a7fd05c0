"""A program that karp runs is run as the interpreter would."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from running import HEAD, LOOP, PATIENCE, environment, karp, program

from karp.launch.processes import WORKER_MAIN
from karp.launch.program import absolute

PROBE = """
import atexit, dataclasses, inspect, json, os, pickle, queue, sys, threading, typing
import helper
seen = {name: str(value).split(" at 0x")[0] for name, value in globals().items() if name.startswith("__")}
main = sys.modules["__main__"]
number: int = 3

@dataclasses.dataclass
class Record:
    value: "Record"

def at_exit():
    import __main__
    print(__main__ is main, __main__.Record is Record, getattr(__main__, "__file__", None))

atexit.register(at_exit)
gate = threading.Event()
threading.Thread(target=lambda: (gate.wait(), print(__name__, Record))).start()
print(json.dumps(seen), sys.argv, sys.path, sys.flags)
print(vars(main) is globals(), list(globals()), __annotations__, helper.__file__, queue.__file__)
print(type(pickle.loads(pickle.dumps(Record(1)))) is Record, typing.get_type_hints(Record), inspect.getsource(Record))
os.chdir("/")
print(os.path.exists(__file__))
gate.set()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs in `real`, links to them, and where they are started: a folder with a file named as a module is."""
    folder = tmp_path_factory.mktemp("programs")
    for name in ("real", "app", "here"):
        (folder / name).mkdir()
        (folder / name / "helper.py").write_text("")
    (folder / "here" / "queue.py").write_text("raise ImportError('another queue')")
    for name in ("real/program.py", "real/program", "app/__main__.py"):
        (folder / name).write_text(PROBE)
    (folder / "link.py").symlink_to("real/program.py")
    (folder / "here" / "link.py").symlink_to("../link.py")
    with zipfile.ZipFile(folder / "app.pyz", "w") as archive:
        for path in (folder / "app").iterdir():
            archive.write(path, path.name)
    return folder


def as_python_and_as_karp(folder: Path, *arguments: str, **variables: str) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of a program as the interpreter runs it, and as karp does."""
    outcomes = []
    for line in ([sys.executable], [sys.executable, WORKER_MAIN]):
        done = subprocess.run(
            [*line, *arguments], cwd=folder / "here", env=environment(**variables), capture_output=True, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        outcomes.append((done.returncode, done.stdout, done.stderr))
    return outcomes


@pytest.mark.parametrize("path", ["link.py", "../real/program", "./../link.py"])
def test_a_program_finds_everything_as_the_interpreter_would_have_it(folder: Path, path: str) -> None:
    expected, found = as_python_and_as_karp(folder, path, "-n", "", "--", "--help")
    assert expected == found
    assert (0, "") == (found[0], found[2])


@pytest.mark.parametrize("path", ["../app", "../app.pyz"])
def test_a_folder_and_an_archive_are_programs_too(folder: Path, path: str) -> None:
    expected, found = as_python_and_as_karp(folder, path, "x")
    assert (0, "") == (found[0], found[2])
    at_exit = expected[1].splitlines()[-1]
    assert expected[1].removesuffix(at_exit + "\n") == found[1].removesuffix(found[1].splitlines()[-1] + "\n")


def test_the_folder_one_is_in_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(tmp_path), f"{tmp_path}/./x", "/x"] == [absolute(path) for path in (".", "./x", "/x")]


def test_a_safe_path_stays_as_it_is(folder: Path) -> None:
    path = os.pathsep.join([environment()["PYTHONPATH"], str(folder / "real")])
    expected, found = as_python_and_as_karp(folder, "link.py", PYTHONSAFEPATH="1", PYTHONPATH=path)
    assert expected == found
    assert 0 == found[0]


@pytest.mark.parametrize(
    "text",
    [
        "def f(): 1 / 0\ntry: f()\nexcept ZeroDivisionError as error: raise ValueError('x') from error",
        "import sys\nsys.exit(3)",
        "import sys\nsys.exit('a reason')",
        "x = (\ny = 3",
        "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
        "import sys\nsys.excepthook = lambda _, error, trace: print(error, trace.tb_lineno, sys.last_value)\n1 / 0",
        "import atexit, sys\natexit.register(lambda: print(repr(sys.last_value), sys.last_traceback.tb_lineno))\n1 / 0",
        "class Stop(BaseException): pass\nraise Stop",
    ],
    ids=["chained", "status", "reason", "syntax", "group", "hook", "last", "base"],
)
def test_a_program_ends_as_the_interpreter_would_have_it(folder: Path, text: str) -> None:
    (folder / "here" / "ends.py").write_text(text)
    expected, found = as_python_and_as_karp(folder, "ends.py")
    assert expected == found


def test_a_text_that_is_no_program_is_named(folder: Path) -> None:
    """Python 3.11.2 itself runs what is before a null byte, and ends well; later ones refuse it, as karp does."""
    for content in (b"x = 1\x00\n", b'print("caf\xe9")\n'):
        (folder / "here" / "damaged.py").write_bytes(content)
        _, found = as_python_and_as_karp(folder, "damaged.py")
        assert (1, True) == (found[0], "damaged.py" in found[2])


def test_a_pool_of_processes_finds_what_the_program_defines(folder: Path) -> None:
    (folder / "here" / "pool.py").write_text(
        "import multiprocessing\nclass Task: pass\ndef name(task): print(type(task).__module__, __name__)\n"
        "if __name__ == '__main__':\n    multiprocessing.set_start_method('spawn')\n"
        "    process = multiprocessing.Process(target=name, args=[Task()])\n    process.start()\n    process.join()\n"
    )
    expected, found = as_python_and_as_karp(folder, "pool.py")
    assert expected == found == (0, "__mp_main__ __mp_main__\n", "")


def test_a_link_is_launched_resumed_and_replayed_as_a_program_that_knows_where_it_is(tmp_path: Path) -> None:
    """It reads a file beside itself when it has gone elsewhere, and the run knows its text."""
    moves = "import helper, pathlib\nos.chdir('/')\npathlib.Path(__file__).with_name('beside').read_text()\n"
    text = "import os\n" + moves + HEAD + LOOP.format(body="pass") + "if trainer.main: print(helper.__name__, sys.argv)"
    program(tmp_path / "real", text)
    (tmp_path / "real" / "helper.py").write_text("")
    (tmp_path / "link.py").symlink_to("real/program.py")
    (tmp_path / "beside").write_text("")  # beside the link, as `__file__` is the link's
    (tmp_path / "secrets.py").write_text("raise ImportError('NumPy would take this for the module')")
    arguments = ["--r", "2", "-n", "--", "", "--help", "caf\udce9"]
    done = karp("launch", "-n", 2, "--run-dir", "run", "link.py", *arguments, cwd=tmp_path)
    assert (0, f"helper {['link.py', *arguments]}\n") == (done.returncode, done.stdout), done.stderr
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert ("link.py", 64) == (settings["program"], len(settings["program_sha256"]))
    path = str(tmp_path / "link.py")
    again = karp("launch", "--resume", tmp_path / "run", cwd=tmp_path)
    assert (0, f"helper {[path, *arguments]}\n") == (again.returncode, again.stdout), again.stderr
    replayed = karp("replay", tmp_path / "run", cwd=tmp_path)
    assert (0, f"helper {[path, *arguments]}") == (replayed.returncode, replayed.stdout.splitlines()[0])
    (tmp_path / "real" / "program.py").write_text(text.replace("epochs=", "epochs=1 + "))
    other = karp("replay", tmp_path / "run", cwd=tmp_path)
    assert (2, True) == (other.returncode, other.stderr.startswith("karp: this program differs from the recorded run"))
