"""karp's part in bench/footprint.py: start, memory or idle, on S."""

import os
import sys
import time
from pathlib import Path

start, what, workers = time.monotonic(), sys.argv[1], int(sys.argv[2])

from bench.cases import CASES, RATE  # noqa: E402
from bench.footprint import IDLE_SECONDS, STEPS  # noqa: E402
from bench.gate import Gate  # noqa: E402

import karp  # noqa: E402
from karp import nn, optim  # noqa: E402


def server() -> int:
    """The server's process: a brother of this one."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if parent == os.getppid() and b"karp.serve.process" in (path.parent / "cmdline").read_bytes():
                return int(path.parent.name)
        except OSError:
            continue  # it has ended
    raise SystemExit("the server is not to be found")


def resident(process: int | str = "self") -> int:
    """KiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def processor(process: int | str = "self") -> float:
    """Seconds that its threads have run."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{process}/task").glob("*/schedstat")) / 1e9


def shared(process: int) -> list[int]:
    """The sizes of the segments that the server has made."""
    links = [path for path in Path(f"/proc/{process}/fd").iterdir() if os.readlink(path).startswith("/memfd:karp")]
    return list({path.stat().st_ino: path.stat().st_size for path in links}.values())  # a mapping has a second link


case = CASES["S"]
x, y = case.data(64 * workers)
inputs, *hidden, outputs = case.sizes
model = nn.MLP(inputs, hidden, outputs, activation=case.activation)
gate, report = Gate(), {"server": {}}
if what != "start":
    gate.meet()
seen = time.monotonic(), processor()


def evaluate() -> float:
    """Holds everybody."""
    number = server()
    before, begin = processor(number), time.monotonic()
    time.sleep(IDLE_SECONDS)
    report["server"] = {"cpu": processor(number) - before, "wall": time.monotonic() - begin}
    return 0.0


with karp.Trainer(
    model, optim.SGD(lr=RATE), batch_size=workers * case.batch, shards=workers, epochs=10_000, show=False
) as trainer:
    for xs, ys in trainer.batches(x, y, evaluate=evaluate if what == "idle" else None, wait_for_score=what == "idle"):
        step = trainer.step
        if what == "start" and step == 1:
            report["at"] = time.monotonic()
            trainer.stop()
        elif what == "idle":
            now = time.monotonic(), processor()
            wall, cpu = now[0] - seen[0], now[1] - seen[1]
            seen = now
            if step == 64:  # after the first epoch's evaluation
                report |= {"wall": wall, "cpu": cpu}
            if step >= 64:
                trainer.stop()
        elif what == "memory" and step in (STEPS, 2 * STEPS):
            number = server() if trainer.shard == 0 else 0
            for process, into in ((os.getpid(), report), (number, report["server"])):
                if not process:
                    continue
                now = resident(process)
                if step == STEPS:
                    into["before"] = now
                elif "before" in into:
                    into["growth"] = now - into["before"]
            if number and step == 2 * STEPS:
                sizes = shared(number)
                report["server"] |= {
                    "shared": sum(sizes), "segments": len(sizes), "vector": model.parameters.layout.nbytes
                }  # fmt: skip
            if step == 2 * STEPS:
                trainer.stop()
        trainer.backward(nn.cross_entropy(model(xs), ys))

if what == "start":
    gate.meet()
gate.report(report)
