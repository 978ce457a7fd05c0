"""What a launcher is told of a program that trains by itself, so that it can go on with it."""

import multiprocessing
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from karp.record.launched import Launched
from karp.trainer import script


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A main module with a file, started from beside it and with two arguments."""
    path = tmp_path / "program.py"
    path.write_text("")
    become(monkeypatch, path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program.py", "--epochs", "5"])
    return path


def become(monkeypatch: pytest.MonkeyPatch, file: Path | None) -> None:
    main = ModuleType("__main__")
    if file is not None:
        main.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "__main__", main)


def test_a_program_is_named_with_its_arguments_options_and_where_it_began(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KARP_CODEC", "int8")
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")  # as a program may
    expected = Launched(str(program), ["--epochs", "5"], 1, 2, codec="int8")
    assert (expected, str(tmp_path)) == script.launched(2)
    expected.write(tmp_path, str(tmp_path))
    assert (expected, str(tmp_path)) == Launched.read(tmp_path)


def test_where_a_program_with_a_whole_path_began_is_where_it_is(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert str(tmp_path) == script.started_in(str(program))
    monkeypatch.setattr(sys, "argv", ["tmp"])
    assert "/" == script.started_in("/tmp")


def test_what_no_launcher_could_run_is_not_named(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "ps1", ">>> ", raising=False)
        assert (False, None) == (script.is_script(), script.launched(1))
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing, "parent_process", lambda: "parent")
        assert (True, None) == (script.is_script(), script.launched(1))
    become(monkeypatch, None)  # -c, -, a notebook
    assert script.launched(1) is None
    become(monkeypatch, program)
    assert script.launched(1) is not None
    program.unlink()
    assert script.launched(1) is None


def test_only_the_first_training_of_a_process_is_one_to_go_on_with(tmp_path: Path) -> None:
    """The tests before this one have trained, or this does now."""
    import karp
    from karp import nn, optim

    for name in ("first", "second"):
        with karp.Trainer(nn.MLP(3, [4], 2), optim.SGD(lr=0.1), batch_size=4, run_dir=tmp_path / name) as trainer:
            for x in trainer.batches([[1.0, 2.0, 3.0]]):
                trainer.backward(trainer.model(x).sum())
    assert not (tmp_path / "second" / "launch.json").exists()
