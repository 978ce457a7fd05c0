"""Launching a small program on real processes, for the tests of what can go wrong around it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """
import os
import numpy as np
import karp
from karp import nn, optim
worker = int(os.environ.get("KARP_WORKER", "0"))
x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int64)
model = nn.MLP(3, [8], 2)
with karp.Trainer(model, optim.SGD(lr=0.1), batch_size=16, epochs=EPOCHS, shards=4) as trainer:
    for xs, ys in trainer.batches(x, y):
        trainer.backward(nn.cross_entropy(model(xs), ys))
if trainer.main:
    print("trained", trainer.step)
"""


def environment(**variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KARP_")}
    return clean | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | variables


def program(folder: Path, epochs: int = 2, text: str = PROGRAM) -> Path:
    path = folder / "program.py"
    path.write_text(text.replace("EPOCHS", str(epochs)))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "karp.cli", *map(str, arguments)]


def karp(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=100
    )


def summary(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return found
