"""The command line: what belongs to karp and what to the program."""

from pathlib import Path

import pytest
from running import HEAD, LOOP, karp, launch, program

from karp import cli


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["launch", "-n", "2", "p.py", "--r", "16", "--c=2", "--ke", "z"], ["--r", "16", "--c=2", "--ke", "z"]),
        (["launch", "-n2", "p.py", "-n", "3", "--resume", "x"], ["-n", "3", "--resume", "x"]),
        (["launch", "--workers=2", "p.py", "--help"], ["--help"]),
        (["launch", "-n", "2", "p.py", "--version", "-h"], ["--version", "-h"]),
        (["launch", "-n", "2", "p.py", "--", "-1", "", "a b", "--"], ["--", "-1", "", "a b", "--"]),
        (["launch", "-n", "2", "--", "p.py", "x"], ["x"]),
        (["launch", "-n", "2", "p.py"], []),
        (["worker", "--server", "tcp://h:1", "p.py", "--server", "tcp://h:2"], ["--server", "tcp://h:2"]),
        (["replay", "run", "p.py", "--threads", "3", "--"], ["--threads", "3", "--"]),
    ],
)
def test_what_follows_the_program_is_the_program_s(line: list[str], expected: list[str]) -> None:
    options = cli.parse(line)
    assert ("p.py", expected) == (options.program, options.arguments)
    assert getattr(options, "workers", 2) == 2
    assert getattr(options, "server", "tcp://h:1") == "tcp://h:1"


def test_a_command_without_a_program_has_no_arguments_for_it() -> None:
    options = cli.parse(["launch", "--resume", "run", "-n", "8"])
    assert (None, [], 8) == (options.program, options.arguments, options.workers)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("launch p.py -n 2", "karp launch lacks -n: -n follows p.py, and all that does is handed to the program"),
        ("launch p.py --workers=2", "karp launch lacks -n: --workers=2 follows p.py"),
        ("launch p.py -n2", "karp launch lacks -n: -n2 follows p.py"),
        ("launch --threads 2 p.py x", "karp launch needs -n N, or --resume DIR"),
        ("launch -n 2", "karp launch needs a PROGRAM, or --resume DIR"),
        ("launch", "karp launch needs -n N and a PROGRAM, or --resume DIR"),
        ("launch --resume run p.py -n 2", "--resume goes on with the program and the directory of its run"),
        ("worker p.py --server tcp://h:1", "karp worker lacks --server: --server follows p.py"),
        ("worker p.py", "karp worker needs --run-dir DIR, or --server ADDRESS and the run's PROGRAM"),
        ("worker --server tcp://h:1", "karp worker needs --run-dir DIR, or --server ADDRESS and the run's PROGRAM"),
        ("worker p.py --run-dir=x", "karp worker lacks --server: --run-dir=x follows p.py"),
        ("worker --run-dir nowhere", "nowhere, so no worker can join it"),
        ("launch --work 2 p.py", "unrecognized arguments: --work"),
        ("launch -n x p.py", "argument -n/--workers: 'x' is no number of workers: N, or N:M"),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_what_cannot_be_done_is_said(capsys: pytest.CaptureFixture[str], line: str, said: str) -> None:
    assert 2 == cli.main(line.split())
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rest", "named"),
    [
        ("--resume X --staleness=3 --r 2", "--resume and --staleness after p.py are handed to it"),
        ("x --threads 3", "--threads after p.py is handed to it; the options of karp launch stand before it"),
        ("--help --version -n 3 --res --epochs 2 -- --resume X", ""),
    ],
)
def test_an_option_of_karp_s_that_the_program_gets_is_named(
    capsys: pytest.CaptureFixture[str], rest: str, named: str
) -> None:
    arguments = rest.split()
    assert arguments == cli.parse(["launch", "-n", "2", "p.py", *arguments]).arguments
    said = capsys.readouterr().err
    assert named in said
    assert bool(named) == bool(said)


@pytest.mark.parametrize("arguments", [["x", "--help"], ["--version"]])
def test_a_program_that_is_asked_for_its_help_gives_it(tmp_path: Path, arguments: list[str]) -> None:
    version = "p.add_argument('--version', action='version', version='7')"
    path = program(tmp_path, f"import argparse\np = argparse.ArgumentParser()\n{version}\np.parse_args()")
    done = launch(tmp_path, 2, path, *arguments)
    expected = "7\n" if arguments == ["--version"] else "usage: program.py"
    assert (0, "", expected) == (done.returncode, done.stderr, done.stdout[: len(expected)])
    assert done.stdout.count("usage") < 2


def test_what_a_program_prints_that_ends_without_training_is_shown(tmp_path: Path) -> None:
    done = launch(tmp_path, 2, program(tmp_path, "print('hello')"))
    assert (1, "hello\n") == (done.returncode, done.stdout)
    assert "no worker trained" in done.stderr


def test_names_and_texts_of_any_kind_are_trained_with(tmp_path: Path) -> None:
    """Bytes that are no text in the names of the program and its run, in an argument and in what is printed."""
    path = program(tmp_path, HEAD + LOOP.format(body="pass") + "print(ascii(sys.argv[1]))")
    path = path.rename(tmp_path / "caf\udce9 \n.py")
    done = karp("launch", "-n", 2, "--run-dir", "r\udce9\n", path, "\udcff", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (0, "'\\udcff'\n") == (done.returncode, done.stdout), done.stderr
    assert "files in " in done.stderr
    again = karp("replay", "r\udce9\n", cwd=tmp_path)
    assert (0, True) == (again.returncode, "equal" in again.stdout)


def test_an_error_of_any_text_is_tried_elsewhere_and_then_ends_the_run(tmp_path: Path) -> None:
    body = "raise FileNotFoundError('no such file: caf\\udce9' + 'x' * 300_000 + '.csv')"
    path = program(tmp_path, HEAD + LOOP.format(body=body))
    done = launch(tmp_path, 2, path)
    assert 1 == done.returncode
    assert "failed at step 0, shard" in done.stderr
    assert "FileNotFoundError: no such file: caf\\udce9xxx" in done.stderr
    assert 'program.py", line' in done.stderr
    assert "(the middle is left out)" in done.stderr
    assert "UnicodeEncodeError" not in done.stderr


def test_a_rule_that_a_program_breaks_is_said_at_once(tmp_path: Path) -> None:
    path = program(tmp_path, HEAD + LOOP.format(body="trainer.log(**{'n' * 201: 1})"))
    done = launch(tmp_path, 2, path)
    assert 1 == done.returncode
    assert "the name of a number is 'nnn" in done.stderr
    assert "started again" not in done.stderr
    assert "another worker tries it" not in done.stderr
