"""The benchmarks run, say what they promise to say, and time nobody who does less work. Nothing here is about speed."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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


def test_estimators_compares_karp_with_scikit_learn(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    short = ("--rounds", "1", "--turn", "0.1", "--cases", "S", "--solvers", "adam")
    done = bench("estimators", *short, "--json", str(file))
    assert (0, "") == (done.returncode, done.stderr)
    (row,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert ("S", "adam", 1) == (row["case"], row["solver"], row["jobs"])
    assert 0 < row["karp"] / row["sklearn"]


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


# bench.sh tables: a table of the tests stands for those of PyPI's packages.


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A set of 60 rows with text and gaps, in the place of all others."""
    pandas = pytest.importorskip("pandas")
    from bench.tables import command, sets

    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"size": rng.normal(size=60), "kind": rng.choice(["a", "b"], 60)})
    frame["y"] = np.where((frame["size"] > 0) & (frame["kind"] == "a"), "yes", "no")
    frame.loc[:4, ["size", "kind"]] = None
    toy = sets.DataSet("toy", "toy==1", "toy.csv", "y", "accuracy", splits=3)
    monkeypatch.setattr(command, "SETS", {"toy": toy})
    monkeypatch.setattr(sets, "read", lambda table: frame)
    monkeypatch.setattr(sets, "lacking", lambda tables: [])
    return toy


def tables(monkeypatch: pytest.MonkeyPatch, work: Path, *arguments: str) -> tuple[int, list[tuple[int, str]]]:
    """Run the command with contestants that score 1 - 0.1 (split + 1), karp twice as well; who was asked to fit."""
    from argparse import ArgumentParser

    from bench.contest import FailedError
    from bench.tables import command

    asked = []

    def fit(self: object, table: object, parts: object, key: Any) -> dict[str, Any]:
        asked.append((key.split, key.contestant))
        if key.contestant == "catboost":
            raise FailedError("no luck")
        missed = 0.1 * (key.split + 1) / (2 if key.contestant == "karp" else 1)
        return {"score": 1 - missed, "seconds": 1.5, "rows": 48, "test_rows": 12, "version": "1"}

    monkeypatch.setattr(command.Children, "fit", fit)
    monkeypatch.setattr(command.machine, "describe", lambda: "a machine")
    for name in ("karp", "sklearn", "catboost"):
        monkeypatch.setitem(command.CONTESTANTS, name, replace(command.CONTESTANTS[name], modules=()))
    parser = ArgumentParser()
    parser.add_argument("--install", action="store_true")
    command.add_arguments(parser)
    return command.run(parser.parse_args(["--work", str(work), *arguments])), asked


def test_tables_compare_and_go_on_where_they_were(
    toy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("--contestants", "karp,sklearn")
    assert (0, [(0, "karp"), (0, "sklearn")]) == tables(monkeypatch, tmp_path, *names, "--splits", "1")
    assert (0, [(1, "sklearn"), (1, "karp"), (2, "karp"), (2, "sklearn")]) == tables(monkeypatch, tmp_path, *names)
    capsys.readouterr()
    assert (0, []) == tables(monkeypatch, tmp_path, *names)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    # The second split's error of karp is a tenth; that of the first is at least one of 12 test rows.
    assert f"toy accuracy 48 3 {100 * (1 / 12 + 0.1 + 0.15) / 3:.4g} 20" in lines
    assert "toy 1.50 1.50" in lines
    assert "karp : scikit-learn MLP 0.556 1 1 100% none" in lines


def test_tables_go_on_without_who_fails_and_say_so_in_the_end(
    toy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("--contestants", "catboost,karp", "--splits", "1")
    assert (1, [(0, "catboost"), (0, "karp")]) == tables(monkeypatch, tmp_path, *names)
    assert "toy, split 1: CatBoost failed: no luck" in capsys.readouterr().out
    assert (1, [(0, "catboost")]) == tables(monkeypatch, tmp_path, *names)


def test_tables_epochs_and_whole_sets_are_other_results(
    toy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ("--contestants", "karp,sklearn", "--splits", "1")
    assert (0, [(0, "karp"), (0, "sklearn")]) == tables(monkeypatch, tmp_path, *names)
    assert (0, [(0, "karp")]) == tables(monkeypatch, tmp_path, *names, "--epochs", "9")
    both = (0, [(0, "karp"), (0, "sklearn")])
    assert both == tables(monkeypatch, tmp_path, *names, "--time", "--sets", "toy")


def test_tables_are_refused_where_something_is_not_installed(
    toy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.tables import command

    monkeypatch.setattr(command.sets, "lacking", lambda tables: ["toy==1"])
    nowhere = replace(command.CONTESTANTS["tabm"], modules=("nowhere.at_all",))
    monkeypatch.setitem(command.CONTESTANTS, "tabm", nowhere)
    assert (1, []) == tables(monkeypatch, tmp_path, "--contestants", "tabm,karp")
    expected = "karp: not installed, use --install: the data package toy==1; nowhere.at_all, for TabM-mini 8 × 128\n"
    assert expected == capsys.readouterr().err


@pytest.mark.parametrize("limit", [None, 300])
def test_splits_have_the_same_share_of_every_class(limit: int | None) -> None:
    from bench.tables.splits import draw

    classes = np.random.default_rng(0).permutation(np.repeat(["a", "b", "c"], [700, 290, 10]))
    train, test = draw(classes, 1000, 7, limit)
    assert (limit or 800, 200) == (len(train), len(test))
    assert len({*train.tolist(), *test.tolist()}) == len(train) + len(test)
    for rows in (train, test):
        counts = [(classes[rows] == name).sum() for name in "abc"]
        shares = [len(rows) * share for share in (0.7, 0.29, 0.01)]
        assert max(abs(count - share) for count, share in zip(counts, shares, strict=True)) <= 1
    again, _ = draw(classes, 1000, 7, limit)
    assert again.tolist() == train.tolist()
    assert draw(classes, 1000, 8, limit)[1].tolist() != test.tolist()


def test_a_split_is_written_once_and_hides_what_is_to_be_predicted(toy: Any, tmp_path: Path) -> None:
    from bench.tables.sets import read
    from bench.tables.splits import write

    parts = write(tmp_path, toy, 0, 30, read(toy))
    lines = {path.name: path.read_text().splitlines() for path in (parts.train, parts.test, parts.truth)}
    assert {"train.csv": 31, "test.csv": 13, "truth.csv": 13} == {name: len(rows) for name, rows in lines.items()}
    assert ["size,kind,y", "size,kind", "y"] == [rows[0] for rows in lines.values()]
    assert parts == write(tmp_path, toy, 0, 30, None)  # which would have to be read
    assert parts != write(tmp_path, toy, 0, None, read(toy))
    assert [] == list(tmp_path.rglob("writing-*"))


@pytest.mark.parametrize("name", ["karp", "sklearn"])
def test_contestants_predict_rows_they_have_not_seen(toy: Any, tmp_path: Path, name: str) -> None:
    pytest.importorskip("sklearn")
    from bench.tables.child import fit
    from bench.tables.contestants import CONTESTANTS, Job
    from bench.tables.sets import read
    from bench.tables.splits import write

    parts = write(tmp_path, toy, 0, None, read(toy))
    job = Job(str(parts.train), "y", "accuracy", 0, 2 if CONTESTANTS[name].takes_epochs else None)
    answer = fit(CONTESTANTS[name], job, str(parts.test), str(parts.truth))
    assert (48, 12) == (answer["rows"], answer["test_rows"])
    assert 0 <= answer["score"] <= 1
    assert 0 < answer["seconds"]


def test_results_survive_a_line_that_was_cut_short(tmp_path: Path) -> None:
    from bench.contest import FailedError
    from bench.tables.results import Result, Results

    file = tmp_path / "results.jsonl"
    first, second = (Result("toy", split, "karp", False, None, 48, 12, 0.9, 1.5, "1") for split in (0, 1))
    Results(file).add(first)
    with file.open("a") as lines:
        lines.write('{"set": "toy", "sp')
    results = Results(file)
    assert (True, False) == (first.key in results, second.key in results)
    results.add(second)
    assert {0: first, 1: second} == Results(file).of("toy", "karp", whole=False, epochs=None)
    file.write_text('{"case": "T"}\n')
    with pytest.raises(FailedError, match="line 1 is no result"):
        Results(file)


def test_differences_are_paired_by_split() -> None:
    from bench.tables.comparing import compare

    theirs = {"a": {0: 0.1, 1: 0.3, 2: 0.5}, "b": {0: 0.4}, "c": {0: 0.2, 1: 0.2}}
    ours = {"a": {0: 0.11, 1: 0.31, 2: 0.51, 3: 9.0}, "b": {0: 0.1}, "c": {2: 0.1}}
    found = compare(("us", "them"), ours, theirs, ["a", "b", "c", "d"])
    assert found is not None
    assert ["a", "b"] == [one.set for one in found.sets]
    assert found.ratio == pytest.approx((0.31 / 0.3 * 0.25) ** 0.5)
    assert (1, ["a"]) == (found.better, found.worse)  # each time a little worse; one split says nothing
    assert compare(("us", "them"), ours, {}, ["a"]) is None


def test_scores_and_errors_of_tables() -> None:
    pytest.importorskip("sklearn")
    from bench.tables.scoring import error, score

    assert score("accuracy", np.array(["1", "2"]), np.array([1, 1])) == 0.5
    assert score("auc", np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.9, 0.1])) == 0.5
    assert score("rmse", np.array([1.0, 2.0]), np.array([1.0, 4.0])) == pytest.approx(2**0.5)
    assert error("auc", 1.0, 50) == 0.02
    with pytest.raises(ValueError, match="not finite"):
        score("rmse", np.array([1.0]), np.array([np.nan]))
    with pytest.raises(ValueError, match="array of shape"):
        score("rmse", np.array([1.0]), np.array([[1.0]]))
