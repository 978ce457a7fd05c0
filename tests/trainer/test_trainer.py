"""A program in one process: the loop's rules, the record, the same bits as a hand-written loop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import metrics, summary

import karp
from karp import data, nn, optim
from karp.errors import ProgramError, RecordError, RunError, SettingError

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def model() -> nn.MLP:
    return nn.MLP(3, [8], 2, seed=1)


def trainer(tmp_path: Path, net: nn.Module | None = None, **changes: Any) -> karp.Trainer:
    arguments = {"batch_size": 16, "epochs": 3, "run_dir": tmp_path / "run", "show": False} | changes
    return karp.Trainer(net or model(), arguments.pop("optimizer", optim.SGD(lr=0.1)), **arguments)


def train(tmp_path: Path, **changes: Any) -> nn.Module:
    net = model()
    with trainer(tmp_path, net, **changes) as training:
        for x, y in training.batches(X, Y):
            training.backward(nn.cross_entropy(net(x), y))
    return net


def test_one_shard_equals_a_hand_written_loop(tmp_path: Path) -> None:
    trained = train(tmp_path)
    net = model()
    plan = data.Plan(50, 16, 1, 0)
    updater = optim.Updater(optim.SGD(lr=0.1), net.parameters.data)
    for step in range(3 * plan.steps_per_epoch):
        rows = plan.rows(step, 0)
        net.zero_grad()
        nn.cross_entropy(net(X[rows]), Y[rows]).backward()
        updater.update(net.parameters.grad)
    assert net.parameters.sha256() == trained.parameters.sha256() == summary(tmp_path / "run")["weights_sha256"]


def test_shards_equal_the_whole_batch_up_to_rounding(tmp_path: Path) -> None:
    one = train(tmp_path / "1").parameters.data
    for shards in (2, 3, 7, 16, 40):
        np.testing.assert_allclose(one, train(tmp_path / str(shards), shards=shards).parameters.data, atol=1e-6)


def test_the_record_holds_what_was_trained(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    net = train(tmp_path, seed=3)
    found = summary(tmp_path / "run")
    expected = {"workers": 1, "shards": 1, "seed": 3, "steps": 12, "epochs": 3.0, "samples": 150, "exit": 0}
    assert {} == found["metrics"]
    assert expected == {name: found[name] for name in expected}
    for name in ("program", "seconds", "samples_per_s", "epoch_loss", "numpy", "blas", "cpu", "threads_per_worker"):
        assert found[name] is not None, name
    tensors = load_file(tmp_path / "run" / "weights.safetensors")
    assert ["layers.0.bias", "layers.0.weight", "layers.1.bias", "layers.1.weight"] == sorted(tensors)
    assert (3, 8) == tensors["layers.0.weight"].shape
    for name, view in net.parameters.layout.views(net.parameters.data).items():
        assert view.tobytes() == tensors[name].tobytes()
    kinds = [line["report"] for line in metrics(tmp_path / "run")]
    assert ["settings", "joined", "kernels", "begin"] == kinds[:4]
    assert {"seconds", "step", "epoch", "interval_loss", "step_loss", "samples_per_s", "workers"} <= set(
        next(line for line in metrics(tmp_path / "run") if line["report"] == "progress")
    )


def test_evaluation_and_logs_reach_the_record(tmp_path: Path) -> None:
    net = model()
    epochs = []
    with trainer(tmp_path, net, shards=2) as training:
        def evaluate() -> dict[str, float]:
            epochs.append(len(epochs))
            return {"score": float(len(epochs))}

        for x, y in training.batches(X, Y, evaluate=evaluate):
            training.backward(nn.cross_entropy(net(x), y))
            if training.step == 5:
                training.log(norm=float(training.shard))
        training.log(after=1.5)
    assert training.main
    lines = metrics(tmp_path / "run")
    assert [(4, 0, 1.0), (8, 1, 2.0), (12, 2, 3.0)] == [
        (line["step"], line["epoch"], line["scores"]["score"]) for line in lines if line["report"] == "evaluation"
    ]
    assert [(5, 0, "norm", 0.0), (5, 1, "norm", 1.0), (12, None, "after", 1.5)] == [
        (line["step"], line.get("shard"), line["name"], line["value"]) for line in lines if line["report"] == "log"
    ]
    assert {"score": 3.0, "norm": 1.0, "after": 1.5} == summary(tmp_path / "run")["metrics"]


def test_stop_ends_after_the_current_step_with_every_shard_of_it(tmp_path: Path) -> None:
    net, seen = model(), []
    with trainer(tmp_path, net, shards=4) as training:
        for x, y in training.batches(X, Y):
            training.backward(nn.cross_entropy(net(x), y))
            seen.append((training.step, training.shard))
            if seen[-1] == (1, 0):
                training.stop()
    assert [(step, shard) for step in range(2) for shard in range(4)] == seen
    assert 2 == training.step == summary(tmp_path / "run")["steps"]


def test_break_ends_after_the_current_step(tmp_path: Path) -> None:
    net = model()
    with trainer(tmp_path, net) as training:
        for x, y in training.batches(X, Y):
            training.backward(nn.cross_entropy(net(x), y))
            if training.step == 2:
                break
    assert (3, 0) == (summary(tmp_path / "run")["steps"], summary(tmp_path / "run")["exit"])
    assert training.main


def test_a_score_that_steers_stops_the_run(tmp_path: Path) -> None:
    net = model()
    with trainer(tmp_path, net) as training:
        def evaluate() -> float:
            training.stop()
            return 1.0

        for x, y in training.batches(X, Y, evaluate=evaluate, wait_for_score=True):
            training.backward(nn.cross_entropy(net(x), y))
    assert (4, {"score": 1.0}) == (summary(tmp_path / "run")["steps"], summary(tmp_path / "run")["metrics"])


def test_weights_are_read_only_in_the_loop_and_the_programs_own_after_it(tmp_path: Path) -> None:
    net = model()
    with trainer(tmp_path, net) as training:
        for x, y in training.batches(X, Y):
            training.backward(nn.cross_entropy(net(x), y))
            with pytest.raises(ValueError, match="read-only"):
                net.parameters.data *= 0.5
    assert train(tmp_path / "undisturbed").parameters.sha256() == net.parameters.sha256()
    net.parameters.data *= 0.5
    net.layers[0].weight.data[0, 0] = 3.0
    assert 3.0 == net.parameters.data[0]


def test_the_generator_is_a_function_of_seed_step_and_shard(tmp_path: Path) -> None:
    def draws(name: str, **changes: Any) -> dict[tuple[int, int], float]:
        net, found = model(), {}
        with trainer(tmp_path / name, net, epochs=1, **changes) as training:
            for x, y in training.batches(X, Y):
                found[training.step, training.shard] = float(training.rng.random())
                assert training.rng.random() != found[training.step, training.shard]
                training.backward(nn.cross_entropy(net(x), y))
        return found

    first = draws("a", shards=2)
    assert first == draws("b", shards=2)
    assert len(first) == len(set(first.values()))
    assert first != draws("c", shards=2, seed=1)


def test_a_table_gives_its_two_parts(tmp_path: Path) -> None:
    net = model()
    table = data.Table(X, Y)
    with trainer(tmp_path, net, epochs=1) as training:
        for x, y in training.batches(table):
            assert (len(x), 3) == x.shape
            training.backward(nn.cross_entropy(net(x), y))
    assert train(tmp_path / "arrays", epochs=1).parameters.sha256() == net.parameters.sha256()


def test_one_array_is_not_wrapped(tmp_path: Path) -> None:
    net, seen = nn.MLP(3, [2], 3), []
    with trainer(tmp_path, net, epochs=1) as training:
        for x in training.batches(X):
            training.backward(nn.mse(net(x), x))
            seen.append(x)
    assert [(16, 3), (16, 3), (16, 3), (2, 3)] == [x.shape for x in seen]
    assert sorted(X.tolist()) == sorted(row for x in seen for row in x.tolist())


def loop(training: karp.Trainer, net: nn.Module, body: Any) -> None:
    with training:
        for x, y in training.batches(X, Y):
            body(training, net, x, y)


def test_a_batch_must_be_given_once(tmp_path: Path) -> None:
    net = model()

    def twice(training: karp.Trainer, net: nn.Module, x: Any, y: Any) -> None:
        training.backward(nn.cross_entropy(net(x), y))
        training.backward(nn.cross_entropy(net(x), y))

    with pytest.raises(ProgramError, match="called twice for one batch"):
        loop(trainer(tmp_path / "a", net), net, twice)
    with pytest.raises(ProgramError, match=r"step 0, shard 0 was not given to trainer\.backward"):
        loop(trainer(tmp_path / "b", net), net, lambda *_: None)
    with pytest.raises(ProgramError, match="outside of the loop"):
        trainer(tmp_path / "c", net).backward(karp.Value(1.0))


def test_a_loss_that_cannot_be_is_named(tmp_path: Path) -> None:
    net = model()
    with pytest.raises(ProgramError, match="takes the loss, a Value, not float"):
        loop(trainer(tmp_path / "a", net), net, lambda training, net, x, y: training.backward(1.0))
    with pytest.raises(ProgramError, match="depends on none of the model's parameters"):
        loop(trainer(tmp_path / "b", net), net, lambda training, net, x, y: training.backward(karp.Value(x).sum()))


def test_a_failure_is_recorded_and_raised(tmp_path: Path) -> None:
    net = model()

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("here")

    with pytest.raises(ZeroDivisionError, match="here"):
        loop(trainer(tmp_path, net), net, fail)
    found = summary(tmp_path / "run")
    assert (1, 0, "the program failed: ZeroDivisionError: here") == (found["exit"], found["steps"], found["failure"])
    (traceback,) = [line["traceback"] for line in metrics(tmp_path / "run") if line["report"] == "traceback"]
    assert "in fail" in traceback


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    net = model()
    before = net.parameters.sha256()

    def poison(training: karp.Trainer, net: nn.Module, x: Any, y: Any) -> None:
        x[0, 0] = np.nan
        training.backward(nn.cross_entropy(net(x), y))

    with pytest.raises(RunError, match=r"step 0, shard 0 from worker 0 is not finite .*, for the second time"):
        loop(trainer(tmp_path, net), net, poison)
    assert before == net.parameters.sha256() == summary(tmp_path / "run")["weights_sha256"]
    assert 1 == summary(tmp_path / "run")["exit"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number from .*, not 0"),
        ({"epochs": -1}, "epochs must be a whole number from .*, not -1"),
        ({"shards": 0}, "shards must be a whole number from .*, not 0"),
        ({"seed": -1}, "seed must be a whole number from .*, not -1"),
        ({"threads": 0}, "threads must be a whole number from .*, not 0"),
    ],
)
def test_arguments_that_cannot_be_are_named(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        train(tmp_path, **changes)


def test_data_that_cannot_be_is_named(tmp_path: Path) -> None:
    with trainer(tmp_path) as training, pytest.raises(SettingError, match=r"equal length; .*\(50, 3\), \(49,\)"):
        training.batches(X, Y[:-1])
    with trainer(tmp_path) as training, pytest.raises(SettingError, match="there are no rows to train on"):
        training.batches(X[:0], Y[:0])


def test_batches_belong_into_the_with_block_once(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="outside of `with`"):
        trainer(tmp_path).batches(X, Y)
    net = model()
    with trainer(tmp_path, net) as training:
        for x, y in training.batches(X, Y):
            training.backward(nn.cross_entropy(net(x), y))
        with pytest.raises(ProgramError, match="epochs is an argument of Trainer"):
            training.batches(X, Y)


def test_main_is_known_at_the_end(tmp_path: Path) -> None:
    net = model()
    with trainer(tmp_path, net) as training:
        for x, y in training.batches(X, Y):
            with pytest.raises(ProgramError, match="read it after the loop"):
                assert training.main
            training.backward(nn.cross_entropy(net(x), y))
    with pytest.raises(ProgramError, match=r"trainer\.rng belongs to a batch"):
        assert training.rng


def test_a_second_run_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    before = summary(tmp_path / "run")
    with pytest.raises(RecordError, match="holds a run already"):
        train(tmp_path)
    assert before == summary(tmp_path / "run")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot be written"):
        train(tmp_path, run_dir=tmp_path / "file" / "run")


def test_the_directory_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KARP_RUN_DIR", str(tmp_path / "run"))
    train(tmp_path, run_dir=None)
    assert 12 == summary(tmp_path / "run")["steps"]
    with pytest.raises(SettingError, match=r"run_dir is .*other.* but KARP_RUN_DIR"):
        train(tmp_path, run_dir=tmp_path / "other")


def test_the_default_directory_is_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(tmp_path, run_dir=None)
    train(tmp_path, run_dir=None)
    assert 2 == len(list((tmp_path / "runs").iterdir()))


def test_the_thread_count_is_set_and_restored(tmp_path: Path) -> None:
    from threadpoolctl import threadpool_info

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    with trainer(tmp_path):
        assert [1] * len(before) == threads()
    assert before == threads()


def test_progress_is_plain_lines_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, show=True)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("step 12/12  epoch 3/3  interval loss ") and "1 worker" in line for line in lines)
    assert lines[-1].endswith(f"files in {tmp_path / 'run'}")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"optimizer": 3}, "3 is no optimiser"),
        ({"optimizer": optim.SGD}, "is no optimiser; one is made like"),
        ({"outer": "nesterov", "local_steps": 2}, "'nesterov' is no optimiser"),
        ({"outer": optim.SGD(lr=0.7)}, "outer is given with local_steps=1"),
        ({"local_steps": "4"}, "local_steps must be a whole number from 1 to 4294967295, not '4'"),
        ({"threads": "x"}, "threads must be a whole number from 1 to 65535, not 'x'"),
        ({"local_steps": 1 << 40}, "local_steps must be a whole number from 1 to 4294967295, not 1099511627776"),
        ({"staleness": 70_000}, r"staleness must be a whole number from 0 to 65535, or None \('none'\): .* not 70000"),
    ],
)
def test_an_argument_that_cannot_be_is_named(tmp_path: Path, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        train(tmp_path, **arguments)


@pytest.mark.parametrize("wrong", [None, 3, nn.MLP, lambda x: x])
def test_what_is_no_model_is_named(wrong: Any) -> None:
    with pytest.raises(SettingError, match="is no model; one is made like"):
        karp.Trainer(wrong, optim.SGD(lr=0.1), batch_size=16)


def test_a_score_in_the_place_of_evaluate_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with trainer(tmp_path) as training, pytest.raises(SettingError, match=r"evaluate is 0\.5; it must be a function"):
        training.batches(X, Y, evaluate=0.5)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_an_asynchronous_run_counts_steps_and_epochs_as_any_other(tmp_path: Path) -> None:
    seen = []

    def evaluate() -> float:
        seen.append((training.step, training.epoch))
        return 0.0

    with trainer(tmp_path, net := model(), shards=3, staleness=None) as training:
        for x, y in training.batches(X, Y, evaluate=evaluate):
            training.backward(nn.cross_entropy(net(x), y))
    assert [(4, 0), (8, 1), (12, 2)] == seen
    assert (12, 3) == (training.step, training.epoch)
    assert 3 * (3 * 3 + 2) == summary(tmp_path / "run")["updates"]  # the last batch of an epoch has two samples


def is_a_directory(run: Path) -> None:
    (run / "weights.safetensors").mkdir()


def is_gone(run: Path) -> None:
    run.rename(run.with_name("gone"))  # at once, whatever the thread of the checkpoints is at


@pytest.mark.parametrize("obstruct", [is_a_directory, is_gone])
def test_files_that_cannot_be_written_are_named_at_the_end_of_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], obstruct: Any
) -> None:
    net, run = model(), tmp_path / "run"
    with pytest.raises(RecordError, match=rf"not all .* in {run}: .*weights\.safetensors \(\w.*\) cannot be written"):
        loop(trainer(tmp_path, net, show=True), net, lambda *of: give(*of, after=lambda: obstruct(run)))
    assert f"karp: not all files of the run are in {run}" in capsys.readouterr().err
    assert train(tmp_path / "again").parameters.sha256() == net.parameters.sha256()


def give(training: karp.Trainer, net: nn.Module, x: Any, y: Any, after: Any) -> None:
    training.backward(nn.cross_entropy(net(x), y))
    if training.step == 5:
        after()


def test_files_that_cannot_be_written_do_not_hide_why_the_program_failed(tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        is_a_directory(tmp_path / "run")
        raise ZeroDivisionError("here")

    net = model()
    with pytest.raises(ZeroDivisionError, match="here") as raised:
        loop(trainer(tmp_path, net), net, fail)
    (note,) = raised.value.__notes__
    assert "weights.safetensors (Is a directory) cannot be written" in note
    found = summary(tmp_path / "run")
    assert (1, ["weights.safetensors (Is a directory)"]) == (found["exit"], found["missing"])
