"""`karp fit` and `karp.fit`: from a table to a model file of the same bytes, whoever trains and whatever dies."""

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from running import ROOT, command, completed, gone, karp, left_over, started

from karp.tabular.model import Model, load

pytest.importorskip("pyarrow")

PENGUINS = ROOT / "workers" / "penguins.csv"
OPTIONS = ("--target", "species", "--epochs", 6, "--recipe", "shards=3", "--recipe", "layers=[16, 8]")
ARGUMENTS = "target='species', epochs=6, shards=3, layers=[16, 8]"
HELD = "worker 0: delay 30 leased step 10; worker 1: delay 30 leased step 10"  # until the test has done what it does
EXPECTED: dict[str, str] = {}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fitted(folder: Path, *options: object, workers: int = 2, status: int = 0, **variables: str) -> str:
    """What `karp fit` says, with the run in `run` and the model in `model`."""
    given = ["-n", workers, "--run-dir", folder / "run", "-o", folder / "model", *OPTIONS, *options]
    done = karp("fit", PENGUINS, *given, cwd=folder, **variables)
    assert status == done.returncode, done.stderr
    assert [] == left_over(folder / "run")
    return done.stderr + done.stdout


def expected(folder: Path) -> str:
    """The digest of the model that one process gives."""
    if not EXPECTED:
        code = f"import karp; karp.fit({str(PENGUINS)!r}, {ARGUMENTS}, n_jobs=1, show=False).save('alone')"
        done = completed([sys.executable, "-c", code], folder)
        assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
        EXPECTED["penguins"] = digest(folder / "alone")
    return EXPECTED["penguins"]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_model_file_is_the_same_for_any_number_of_workers(tmp_path: Path, workers: int) -> None:
    said = fitted(tmp_path, workers=workers)
    assert expected(tmp_path) == digest(tmp_path / "model")
    assert not (tmp_path / "run" / "prepared").exists()
    for line in ("rows      344 read: 275 to train on, 69 to validate", "linear model", "majority", "predict   karp "):
        assert line in said
    assert f"model     model, sha256 {expected(tmp_path)[:12]}" in said
    assert max(map(len, said.replace(str(tmp_path), "").splitlines())) <= 80


@pytest.mark.parametrize(
    "fault",
    [
        "worker 1: die computing step 7",
        "worker 0: die evaluation; worker 1: die evaluation",  # one of them evaluates
        "worker 0: die left; worker 1: die left",
        "worker 0: die done",
        "server: die applied step 9",
        "server: die writing step 1",
    ],
)
def test_the_model_file_is_the_same_whatever_dies(tmp_path: Path, fault: str) -> None:
    fitted(tmp_path, KARP_FAULT=fault)
    assert list((tmp_path / "run" / "faults").iterdir())
    assert expected(tmp_path) == digest(tmp_path / "model")


def test_names_of_any_kind_are_fitted(tmp_path: Path) -> None:
    """In a column, a class and a file, also where standard output knows ASCII alone."""
    rows = [f"{place % 7},{'ß' if place % 7 > 2 else 'b,c'!r},x" for place in range(40)]
    text = "größe\\n,é t,weight\n" + "\n".join(rows).replace("'", '"')
    (tmp_path / "dé à.csv").write_text(text, encoding="utf-8")
    given = ["--target", "é t", "--epochs", 2, "-n", 1, "--run-dir", "rùn", "-o", "modèle"]
    done = karp("fit", "dé à.csv", *given, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert 0 == done.returncode, done.stderr
    assert "karp predict" in done.stdout
    assert ("b,c", "ß") == load(tmp_path / "modèle").fitted.target.classes


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(("output", "status"), [("/dev/full", 1), ("/dev/null", 0)])
def test_a_model_may_go_to_a_device(tmp_path: Path, output: str, status: int) -> None:
    """Where it cannot be written there, that is said without a traceback."""
    given = ["-n", 1, "--run-dir", "run", *OPTIONS, "--epochs", 1, "-o", output]
    done = karp("fit", PENGUINS, *given, cwd=tmp_path)
    assert status == done.returncode, done.stderr
    said = "karp: what worker 0 printed last:\nkarp: the model cannot be written to /dev/full: No space left on device"
    assert (bool(status), False) == (said in done.stderr, "Traceback" in done.stderr), done.stderr


def test_an_interrupted_fit_is_gone_on_with_to_the_same_file(tmp_path: Path) -> None:
    line = command("fit", PENGUINS, "-n", 2, "--run-dir", "run", "-o", "model", *OPTIONS)
    with started(line, tmp_path, KARP_FAULT=HELD) as process:
        process.until("run  ")
        process.send_signal(signal.SIGINT)
        status, _, said = process.end()
    assert (130, True, False) == (status, "to go on: karp launch --resume" in said, (tmp_path / "model").exists()), said
    numbers = tmp_path / "run" / "prepared" / "train.numbers"
    content = numbers.read_bytes()
    numbers.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    done = karp("launch", "--resume", "run", "-n", 1, cwd=tmp_path)
    assert (2, f"karp: {numbers} has changed since it was written; fit again, in another directory\n") == (
        done.returncode, done.stderr
    )  # fmt: skip
    numbers.write_bytes(content)
    done = karp("launch", "--resume", "run", "-n", 1, cwd=tmp_path)
    assert 0 == done.returncode, done.stderr
    assert expected(tmp_path) == digest(tmp_path / "model")
    assert "linear model" in done.stdout
    assert not (tmp_path / "run" / "prepared").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFO")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_while_the_table_is_read_leaves_nothing(tmp_path: Path, number: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    line = command("fit", "pipe", *OPTIONS)
    with started(line, tmp_path, PYTHONWARNINGS="") as process:
        with (tmp_path / "pipe").open("w"):
            process.send_signal(number)  # it has opened the pipe, and reads or is about to
        assert (128 + number, "", "") == process.end()  # Python looks at a signal that came too early after the read
    assert ["pipe", "runs"] == sorted(path.name for path in tmp_path.rglob("*"))


def test_what_a_fit_that_was_killed_while_it_prepared_has_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from karp import cli

    monkeypatch.chdir(tmp_path)
    for place in ("runs/old/prepared", "run/prepared"):
        Path(place).mkdir(parents=True)
        Path(place, ".preparing").touch()
        Path(place, ".train.numbers.77.part").touch()
    wrong = ["fit", str(PENGUINS), "--target", "wings"]
    assert (2, 2) == (cli.main(wrong), cli.main([*wrong, "--run-dir", "run"]))
    said = capsys.readouterr().err
    for place in ("runs/old/prepared", "run/prepared"):
        assert f"{place} is removed: the process that prepared it was killed" in " ".join(said.split())
    assert ["runs"] == [path.name for path in tmp_path.rglob("*")]


def test_karp_fit_launches_from_any_process(tmp_path: Path) -> None:
    """From standard input there is no file that a child could import."""
    code = f"import karp, sys\nmodel = karp.fit({str(PENGUINS)!r}, {ARGUMENTS}, n_jobs=2)\nprint(model.save('model'))"
    done = completed([sys.executable, "-c", f"exec({code!r})"], tmp_path, TMPDIR=str(tmp_path))
    assert 0 == done.returncode, done.stderr
    assert expected(tmp_path) == done.stdout.strip() == digest(tmp_path / "model")
    assert "linear model" in done.stderr
    assert {"model", "alone"} >= {path.name for path in tmp_path.iterdir()}


def test_what_a_launcher_says_goes_to_the_stream_that_stands_for_standard_error(tmp_path: Path) -> None:
    """As in a notebook, whose sys.stderr is no file."""
    code = f"""import io, sys, karp
sys.stderr = io.StringIO()
karp.fit({str(PENGUINS)!r}, {ARGUMENTS}, n_jobs=2)
print(sys.stderr.getvalue())"""
    done = completed([sys.executable, "-c", code], tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    assert "best      epoch " in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    """Nor does it say how to go on, as it cannot."""
    code = f"import karp; karp.fit({str(PENGUINS)!r}, {ARGUMENTS}, n_jobs=2)"
    with started([sys.executable, "-c", code], tmp_path, TMPDIR=str(tmp_path), KARP_FAULT=HELD) as process:
        process.until("run  ")
        (folder,) = tmp_path.glob("karp-fit-*")
        process.send_signal(number)
        status, _, said = process.end()
    assert (-number if number == signal.SIGKILL else 128 + number) == status
    assert (True, False, False) == tuple(text in said for text in ("stopped after", "to go on", "Traceback")), said
    assert gone(folder)
    assert [] == list(tmp_path.iterdir())


def test_an_interrupt_while_what_it_says_is_passed_on_leaves_nothing_behind(tmp_path: Path) -> None:
    code = f"""import sys, karp
class Stream:
    def write(self, text): sys.__stderr__.write(text); sys.__stderr__.flush()
    def flush(self): pass
    def isatty(self): return False
sys.stderr = Stream()
try:
    karp.fit({str(PENGUINS)!r}, {ARGUMENTS}, n_jobs=2)
except KeyboardInterrupt:
    print("interrupted")"""
    with started([sys.executable, "-c", code], tmp_path, TMPDIR=str(tmp_path), KARP_FAULT=HELD) as process:
        process.until("run  ")
        (folder,) = tmp_path.glob("karp-fit-*")
        process.send_signal(signal.SIGINT)
        status, printed, said = process.end()
    assert (0, "interrupted\n", True) == (status, printed, "stopped after step" in said), said
    assert ([], []) == (left_over(folder), list(tmp_path.iterdir()))


def test_a_program_of_a_launcher_cannot_fit(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(f"import karp\nkarp.fit({str(PENGUINS)!r}, target='species')\n")
    done = karp("launch", "-n", 1, "program.py", cwd=tmp_path)
    assert (1, True) == (done.returncode, "run this program with python, not karp launch" in done.stderr), done.stderr


def test_the_directory_of_the_run_may_be_a_variable(tmp_path: Path) -> None:
    code = f"import karp; karp.fit({str(PENGUINS)!r}, {ARGUMENTS}, n_jobs=1, output='model', show=False)"
    done = completed([sys.executable, "-c", code], tmp_path, KARP_RUN_DIR=str(tmp_path / "run"))
    assert 0 == done.returncode, done.stderr
    assert expected(tmp_path) == digest(tmp_path / "model")
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_launcher_stops_with_the_process_that_has_started_it(tmp_path: Path) -> None:
    code = f"import karp; karp.fit({str(PENGUINS)!r}, {ARGUMENTS}, n_jobs=2, run_dir='run')"
    with started([sys.executable, "-c", code], tmp_path, KARP_FAULT=HELD) as process:
        process.until("run  ")
        process.kill()
        process.until("stopped after step")
    assert gone(tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--score", "rmse"), "score is 'rmse': of a classification pass accuracy, log_loss, auc"),
        (("--recipe", "layer=3"), "the recipe has no 'layer'; it has task, layers"),
        (("--drop", 'wings,"'), "--drop is 'wings,\"': unexpected end of data: write a name with a comma or quotes"),
        (("--drop", "sex", "--drop", '"wings, both",year'), "has no column 'wings, both'"),
        (("--recipe", "layers"), "--recipe is 'layers': write a field and its value"),
        (("--memory", "much"), "'much' is no size"),
        (("--drop", "wings"), "has no column 'wings'"),
        (("--validation", "nowhere.csv"), "nowhere.csv"),
        (("--test", "nowhere.csv"), "nowhere.csv"),
        (("--test", "/dev/null"), "pass a regular file"),
        (("--epochs", "0"), "epochs must be a whole number from 1"),
        (("--recipe", "seed=1"), "--recipe seed=1: that is an option of its own, --seed"),
        (("-o", PENGUINS), "is one of the tables, which would be lost: name another"),
        (("--validation", PENGUINS, "-o", f"{PENGUINS.parent}/../workers/penguins.csv"), "is one of the tables"),
        (("-n", "-1"), "n_jobs must be a whole number from 1, or left out for all cores"),
        (("-n", "0"), "n_jobs must be a whole number from 1"),
        (("-o", "nowhere/model"), "there is no directory"),
        (("-o", "/"), "is a directory: name a file in it"),
        (("--run-dir", ""), "--run-dir is empty"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: Any, said: str
) -> None:
    from karp import cli

    monkeypatch.chdir(tmp_path)
    assert 2 == cli.main(["fit", str(PENGUINS), *map(str, OPTIONS), *map(str, options)])
    printed = capsys.readouterr().err
    assert said in printed
    if options[0] != "--score":  # it depends on the target
        assert printed.startswith("karp: ")
    assert 2 == cli.main(["fit", str(PENGUINS), *map(str, (*OPTIONS, "--run-dir", "new/run", *options))])
    assert not Path("new/run").exists()
    assert [] == [path for path in tmp_path.rglob("*") if path.name not in ("runs", "new")]


def test_an_earlier_model_is_not_lost_unless_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("mine")
    done = karp("fit", PENGUINS, *OPTIONS, cwd=tmp_path)
    assert (2, True) == (done.returncode, "there is a model.safetensors already: name the new" in done.stderr)
    assert "mine" == (tmp_path / "model.safetensors").read_text()


def test_a_table_of_numbers_in_memory_is_fitted_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    import karp as package

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    table = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": 1000 + 10 * x[:, 0] * x[:, 1]}
    test = {name: column[:50] for name, column in table.items()}
    model = package.fit(
        table, target="y", n_jobs=1, epochs=40, layers=[32, 32], test=test, output=tmp_path / "m", seed=3
    )
    assert isinstance(model, Model)
    results = load(tmp_path / "m").fitted.results
    assert results == model.fitted.results
    assert {"karp", "linear", "mean"} == set(results["test"])
    assert results["validation"]["karp"]["r2"] > 0.5 > results["validation"]["linear"]["r2"]
    assert pytest.approx(results["test"]["karp"]) == model.evaluate(test)
    said = capsys.readouterr().err
    assert "recipe    32-32 mish, 40 epochs of batches of 64" in said
    assert "RMSE*" in said
    assert os.listdir(tmp_path) == ["m"]
