"""Ranges among real processes: the bits of one process, whatever happens at which point of a step."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import HEAD, TRAINED, alone, command, karp, metrics, program, start, summary

RULE = "optim.SGD(0.1, momentum=0.9)"
LOOP = """
with karp.Trainer(model, {rule}, batch_size={batch}, epochs={epochs}, shards={shards}, show=False) as trainer:
    for xs, ys in trainer.batches(x, y{more}):
        {body}
        trainer.backward(nn.cross_entropy(model(xs), ys))
"""
STEPS = 200


def training(folder: Path, body: str = "pass", **changes: Any) -> Path:
    """A program of 200 steps."""
    fields = {"rule": RULE, "batch": 16, "epochs": 50, "shards": 4, "more": "", "body": body} | changes
    return program(folder, HEAD + LOOP.format(**fields) + TRAINED)


def reference(folder: Path, **changes: Any) -> str:
    """The weights' hash of one process."""
    return str(alone(training(folder / "alone", **changes), directory=folder / "alone" / "run")[0]["weights_sha256"])


def launched(folder: Path, path: Path, workers: int, *options: object, **variables: str) -> tuple[dict[str, Any], str]:
    """The summary of a launch that ends well, and what it has said."""
    options = ("--checkpoint-every", 1000, *options)
    done = karp("launch", "-n", workers, "--run-dir", folder / "run", *options, path, cwd=folder, **variables)
    assert 0 == done.returncode, done.stderr
    return summary(folder / "run"), done.stderr


@pytest.mark.parametrize(
    ("workers", "shards", "rule"),
    [
        (1, 1, RULE),
        (2, 2, "optim.Adam(0.01, clip_norm=0.1)"),
        (3, 3, "optim.AdamW(optim.WarmUp(0.01, steps=5))"),
        (3, 4, "optim.RMSprop(0.01, momentum=0.5)"),
        (5, 8, "optim.SGD(0.1)"),
    ],
)
def test_the_bits_are_those_of_one_process(tmp_path: Path, workers: int, shards: int, rule: str) -> None:
    """Also where leases are no nodes of the tree: (5, 8) has leases of two shards and of one."""
    changes = {"shards": shards, "rule": rule}
    found, _ = launched(tmp_path, training(tmp_path, **changes), workers)
    assert reference(tmp_path, **changes) == found["weights_sha256"]
    assert STEPS == found["steps"]
    assert found["dropped"] == 0


def exchanges(run: Path) -> list[tuple[int, int, bool]]:
    """The reports of how a run exchanges gradients: workers, those that share memory, whether there are ranges."""
    found = [report for report in metrics(run) if report["report"] == "exchange"]
    return [(report["workers"], report["sharing"], report["in_ranges"]) for report in found]


def test_almost_all_steps_end_in_ranges(tmp_path: Path) -> None:
    found, said = launched(tmp_path, training(tmp_path), 2)
    assert [(2, 2, True)] == exchanges(tmp_path / "run"), said
    assert found["steps_in_ranges"] >= 0.9 * STEPS
    frames = karp(
        "launch", "-n", 2, "--exchange", "zeromq", "--run-dir", "frames", training(tmp_path), cwd=tmp_path
    )
    assert 0 == frames.returncode
    assert [(2, 0, False)] == exchanges(tmp_path / "frames"), frames.stderr
    frames_found = summary(tmp_path / "frames")
    assert (0, found["weights_sha256"]) == (frames_found["steps_in_ranges"], frames_found["weights_sha256"])


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        ("if trainer.step % 7 == 3: trainer.log(step=trainer.step)", {}),
        ("if trainer.step == 120: trainer.stop()", {}),
        ("if trainer.step == 120: break", {}),
        ("np.seterr(all='raise')", {}),
        ("pass", {"batch": 24}),  # an epoch's last step has fewer samples
        ("pass", {"batch": 21, "shards": 2}),  # and fewer shards
        ("pass", {"more": ", evaluate=lambda: float(model(x).data.sum())"}),
        ("pass", {"more": ", sample_weights=np.arange(1.0, 65.0)", "shards": 2}),
    ],
)
def test_what_does_not_fit_a_range_changes_nothing(tmp_path: Path, body: str, changes: dict[str, Any]) -> None:
    changes = {"body": body} | changes
    text = training(tmp_path, **changes).read_text()
    if "sample_weights" in str(changes):
        text = text.replace("for xs, ys in", "for xs, ys, ws in").replace("xs), ys)", "xs), ys, sample_weights=ws)")
    path = program(tmp_path, text)
    expected, _ = alone(program(tmp_path / "alone", text), directory=tmp_path / "alone" / "run")
    found, _ = launched(tmp_path, path, 2)
    for name in ("steps", "weights_sha256", "epoch_loss", "metrics", "samples", "finished"):
        assert expected[name] == found[name], name


# From step 50 on worker 1 arrives last, so it is the one that ends a step.
LAST = "import time; time.sleep(0.001 * (worker == 1 and trainer.step >= 50))"
POINTS = ("arriving", "arrived", "ending", "half-ended", "updated", "ended")


@pytest.mark.parametrize("point", [*(f"worker 1: die {point}" for point in POINTS), "server: die closing"])
def test_whoever_dies_in_a_range_leaves_the_same_bits(tmp_path: Path, point: str) -> None:
    fault = f"{point} step 50" if point.startswith("worker") else point
    slow = "import time; time.sleep(0.01)" if point.startswith("server") else LAST  # so that a range is closed
    found, said = launched(tmp_path, training(tmp_path, slow), 2, KARP_FAULT=fault)
    assert (tmp_path / "run" / "faults" / "0").exists()
    assert "killed by SIGKILL" in said
    assert reference(tmp_path) == found["weights_sha256"]


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_stops_is_left_behind_and_changes_nothing_when_it_goes_on(tmp_path: Path, point: str) -> None:
    """It goes on when the others have done 60 more steps, and may then do what it was about to."""
    gate = f"""
        {LAST}
        gate = os.environ['GATE']
        if trainer.step == 110 and worker == 0 and os.path.exists(gate):
            open(gate).close()
            os.unlink(gate)
"""
    path = training(tmp_path, gate.strip(), shards=2)
    os.mkfifo(tmp_path / "gate")
    line = command("launch", "-n", 2, "--run-dir", tmp_path / "run", "--checkpoint-every", 1000, path)
    launch = start(line, tmp_path, GATE=str(tmp_path / "gate"), KARP_FAULT=f"worker 1: pause {point} step 50")
    with open(tmp_path / "gate", "w"):  # worker 0 is at step 110
        pid = int((tmp_path / "run" / "faults" / "0").read_text().split()[0])
        os.kill(pid, signal.SIGCONT)
    out, said = launch.communicate(timeout=300)
    assert (0, "trained 200\n") == (launch.returncode, out), said
    found = summary(tmp_path / "run")
    assert reference(tmp_path, shards=2) == found["weights_sha256"]
    holds_lock = point in ("ending", "half-ended", "updated", "ended")
    assert holds_lock == ("has stopped while it ended step" in said)


def test_a_gradient_that_is_large_but_finite_ends_no_step_among_workers(tmp_path: Path) -> None:
    """Its sum may not be finite, which only the server looks at."""
    body = "if trainer.step == 60: xs = xs * np.float32(1e18)"
    found, _ = launched(tmp_path, training(tmp_path, body, rule="optim.SGD(1e-30)"), 2, PYTHONWARNINGS="ignore")
    assert np.isfinite(found["epoch_loss"])
    assert STEPS == found["steps"]
