"""The benchmarks run, say what they promise to say, and time nobody who does less work. Nothing here is about speed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT, completed, environment

FIELDS = {"case", "name", "steps_per_s", "low", "high", "peak_rss_mb", "growth_mb"}
# A child that fails in the way its argument says: at the start, in an answer, by dying, by printing what is no answer.
CHILD = """
import sys
from bench.contest import serve, turns_of

def run(count):
    print("a library talks")
    if sys.argv[1] == "error":
        raise ValueError("no\\nmore")
    if sys.argv[1] == "death":
        sys.exit("last words")

def start():
    if sys.argv[1] == "start":
        raise ImportError("no such engine")
    return turns_of(run)

serve(start)
"""


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return completed([sys.executable, "-P", "-m", "bench", *arguments], ROOT)


def test_engine_prints_ratios_and_writes_a_row_per_contestant(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    short = ("--rounds", "1", "--turn", "0.01", "--cases", "T")
    done = bench("engine", *short, "--names", "karp,numpy", "--json", str(file))
    assert (0, "") == (done.returncode, done.stderr)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {("T", "karp"), ("T", "numpy")} == {(row["case"], row["name"]) for row in rows}
    for row in rows:
        assert FIELDS == set(row)
        assert 0 < row["low"] <= row["steps_per_s"] <= row["high"]
        assert 0 <= row["growth_mb"] < row["peak_rss_mb"]
    assert "karp : numpy = " in done.stdout


def test_engine_refuses_names_it_does_not_know() -> None:
    done = bench("engine", "--names", "karp,theano")
    assert 2 == done.returncode
    assert "no theano; there are karp, numpy" in done.stderr


def test_import_compares_karp_with_numpy(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    done = bench("import", "--rounds", "1", "--json", str(file))
    assert (0, "") == (done.returncode, done.stderr)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(case, name) for case in ("import", "process") for name in ("numpy", "karp")] == [
        (row["case"], row["name"]) for row in rows
    ]


@pytest.mark.parametrize(
    ("case", "name"), [("T", "karp"), ("T", "numpy"), ("T", "karp-scalar"), ("S", "karp"), ("S", "numpy")]
)
def test_the_work_is_the_hand_written_step(case: str, name: str) -> None:
    from bench.cases import CASES
    from bench.contestants import CONTESTANTS
    from bench.engine import CHECKED_STEPS, check
    from bench.handwritten import losses

    contestant = CONTESTANTS[name]
    assert case in contestant.cases
    run = contestant.build(CASES[case])
    expected = losses(CASES[case], CHECKED_STEPS, contestant.activation)
    check(expected, [run(1) for _ in range(CHECKED_STEPS)])


def test_who_does_less_work_is_found_out() -> None:
    from bench.cases import CASES
    from bench.contest import FailedError
    from bench.engine import check
    from bench.handwritten import losses

    expected = losses(CASES["T"], 3)
    with pytest.raises(FailedError, match="does other work: the loss of step 1 "):
        check(expected, expected[:1] * 3)  # never updates


def contest(*ways: str) -> tuple[dict[str, int], dict[str, str]]:
    """Turns taken by a child for each way to fail, and the reasons of those that did."""
    from bench.contest import FailedError, Process, rounds

    processes = [Process(way, [sys.executable, "-c", CHILD, way], environment()) for way in ways]
    ready, reasons = [], {}
    try:
        for process in processes:
            try:
                process.ready()
                ready.append(process)
            except FailedError as error:
                reasons[process.name] = str(error)
        turns, failed = rounds(ready, 3, 0.001, lambda number: None)
        return {name: len(every) for name, every in turns.items()}, reasons | failed
    finally:
        for process in processes:
            process.close()


def test_who_fails_is_out_with_a_reason_and_the_others_go_on() -> None:
    turns, reasons = contest("start", "error", "death", "none")
    assert {"none": 3} == turns
    assert {
        "start": "ImportError: no such engine",
        "error": "ValueError: no",
        "death": "ended with status 1: last words",
    } == reasons


def test_the_order_rotates_and_parts_add_up() -> None:
    from bench.contest import PARTS, rounds

    order: list[str] = []

    class Silent:
        def __init__(self, name: str) -> None:
            self.name = name

        def turn(self, seconds: float) -> dict[str, float]:
            order.append(self.name)
            return {"seconds": seconds}

    turns, _ = rounds([Silent("a"), Silent("b"), Silent("c")], 3, 1.0, lambda number: None)  # type: ignore[list-item]
    assert list("abcbcacab") == order[:9]
    assert {name: [{"seconds": 1.0}] * 3 for name in "abc"} == turns
    assert 3 * 3 * PARTS == len(order)


def test_exchange_writes_a_row_per_contestant(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    short = ("--rounds", "1", "--seconds", "0.05", "--cases", "S")
    done = bench("exchange", *short, "--names", "karp-shared,karp-one,free", "--json", str(file))
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {("S", "karp-shared", 2), ("S", "karp-one", 1), ("S", "free", 2)} == {
        (row["case"], row["name"], row["workers"]) for row in rows
    }
    for row in rows:
        assert {"case", "name", "workers", "samples_per_s", "low", "high"} == set(row)
        assert 0 < row["low"] <= row["samples_per_s"] <= row["high"]
    assert "karp-shared : free = " in done.stdout


def test_exchange_finds_out_who_does_other_work() -> None:
    from bench.contest import FailedError
    from bench.exchange import check

    check([2.0, 3.0], [{"0": 2.0}, {"1": 3.0}])
    check([2.0, 3.0], [{"1": 3.0}, {"1": 3.0}])  # the first was held up, and its shard given to the other
    with pytest.raises(FailedError, match=r"the loss of step 9, shard 1 is 2\.9, by hand it is 3"):
        check([2.0, 3.0], [{"0": 2.0}, {"1": 2.9}])
    with pytest.raises(FailedError, match="was not told"):
        check([2.0, 3.0], [{}, {}])


def test_exchange_says_why_a_worker_is_out() -> None:
    from bench import gate
    from bench.contest import FailedError

    with pytest.raises(FailedError, match="ended with status 1: ValueError: no gradient"):
        gate.run([[sys.executable, "-c", "raise ValueError('no gradient')"]], 1, environment(), 1.0)
    meet = "from bench.gate import Gate; gate = Gate(); gate.meet(); gate.report({'rank': 1})"
    assert [{"rank": 1}] * 2 == gate.run([[sys.executable, "-c", meet]] * 2, 2, environment(), 1.0)


def test_modes_train_to_the_target(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    modes = "one process,synchronous,staleness 1"
    done = bench("modes", "--rounds", "1", "--tasks", "digits", "--modes", modes, "--json", str(file))
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [("one process", False), ("synchronous", False), ("staleness 1", False), ("synchronous", True),
            ("staleness 1", True)] == [(row["mode"], row["straggler"]) for row in rows]  # fmt: skip
    for row in rows:
        assert 0 < row["seconds"]
        assert (row["mode"] == "one process") == (row["bytes_per_step_and_worker"] == 0)
        assert row["most_stale"] <= (row["mode"] == "staleness 1")
    assert rows[1]["samples"] == rows[3]["samples"]  # the straggler costs time, and changes nothing
