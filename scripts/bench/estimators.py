"""`bench.sh estimators`: steps per second of `karp.estimator.MLPClassifier` and of scikit-learn's, with its settings.

Each fits the same float32 rows with the same network, solver, batches, L2 penalty and seed; one core each, in turns.
Ratios are medians of the rounds' ratios. With --jobs N the last lines are of N workers, and of scikit-learn with N BLAS
threads. A fit of a turn has many epochs, and its beginning counts.
"""

from __future__ import annotations

import os
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import machine
from bench.cases import CASES
from bench.contest import PARTS, Answer, FailedError, Process, rounds, serve, turns_of
from bench.contestants import ENVIRONMENT, sklearn_batches
from bench.engine import progress, several
from bench.table import Figure, ratio, short, text, write_json

GOALS = {"adam": {"S": 4.0, "M": 2.5, "L": 1.5}, "sgd": {"S": 3.5, "M": 1.8, "L": 1.4}}
SOLVERS = ("adam", "sgd")
WORKERS_TURN = 3  # how many times as long a turn is with several workers, which take a second to start


def add_arguments(parser: ArgumentParser) -> None:
    """The options after `bench.sh estimators`."""
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each contestant (5)")
    parser.add_argument("--turn", type=float, default=4.0, metavar="SECONDS", help="length of a turn (4)")
    parser.add_argument("--cases", type=several("SML"), default=list("SML"), metavar="S,M,L", help="all by default")
    parser.add_argument("--solvers", type=several(SOLVERS), default=list(SOLVERS), metavar="adam,sgd", help="both")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="workers, on M and L (1)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a busy machine")
    parser.add_argument("--json", metavar="FILE", help="write one object per row")
    parser.add_argument("--scores", type=int, default=0, metavar="N", help="no rates, but scores of N times five folds")


def run(args: Namespace) -> int:
    """Make the table."""
    if args.scores:
        from bench import estimator_scores

        return estimator_scores.run(args.scores)
    print(machine.describe())
    table = [["case", "solver", "cores", "karp steps/s", "scikit-learn", "ratio", "low", "high", "goal"]]
    done: list[dict[str, object]] = []
    failed = False
    for case in args.cases:
        for solver in args.solvers:
            for jobs in sorted({1, args.jobs} if case != "S" else {1}):
                clock = "cpu" if args.clock == "cpu" and jobs == 1 else "seconds"
                try:
                    rates = contest(case, solver, jobs, args, clock)
                except FailedError as error:
                    print(f"{case} {solver} is out: {error}")
                    failed = True
                    continue
                share = ratio(rates["karp"], rates["sklearn"])
                middle = {name: Figure.of(values).middle for name, values in rates.items()}
                goal = GOALS[solver][case] if jobs == 1 else 1.3
                table.append([
                    case, solver, str(jobs), short(middle["karp"]), short(middle["sklearn"]), f"{share.middle:.2f}",
                    f"{share.low:.2f}", f"{share.high:.2f}", f"{goal:.1f}",
                ])  # fmt: skip
                done.append({"case": case, "solver": solver, "jobs": jobs, "ratio": share.middle, **middle})
    progress("")
    print(text(table))
    if args.json:
        write_json(args.json, done)
    return int(failed)


def contest(case: str, solver: str, jobs: int, args: Namespace, clock: str) -> dict[str, list[float]]:
    """The steps per second of each, in each round; raises FailedError if one fails."""
    scripts = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, (scripts, os.environ.get("PYTHONPATH"))))
    processes: list[Process] = []
    try:
        for name in ("karp", "sklearn"):
            threads = {} if name == "karp" or jobs == 1 else {key: str(jobs) for key in ENVIRONMENT}
            command = [sys.executable, "-m", "bench.estimators", name, case, solver, str(jobs)]
            processes.append(Process(name, command, os.environ | ENVIRONMENT | threads | {"PYTHONPATH": path}))
        turn, parts = (args.turn, PARTS) if jobs == 1 else (WORKERS_TURN * args.turn, 1)
        for process in processes:
            process.ready()
            process.ask(f"warm {turn / 4}", turn)

        def report(number: int) -> None:
            progress(f"{case} {solver} {jobs}: round {number}")

        turns, out = rounds(processes, args.rounds, turn, report, parts)
        if out:
            raise FailedError("; ".join(f"{name}: {why}" for name, why in out.items()))
    finally:
        for process in processes:
            process.close()
    steps = sklearn_batches(CASES[case])
    return {name: [steps * turn["count"] / turn[clock] for turn in answers] for name, answers in turns.items()}


def start(name: str, case_name: str, solver: str, jobs: str) -> Mapping[str, Callable[[str], Answer]]:
    """Make the estimator; its work is an epoch."""
    estimators: Any
    if name == "karp":
        from karp import estimator as estimators
    else:
        from sklearn import neural_network as estimators  # type: ignore[import-untyped,no-redef]
    case = CASES[case_name]
    x, y = case.data(sklearn_batches(case))
    warnings.simplefilter("ignore")  # it does not converge
    given = {"n_jobs": int(jobs)} if name == "karp" else {}

    def fit(epochs: int) -> None:
        model = estimators.MLPClassifier(
            case.sizes[1:-1], solver=solver, batch_size=case.batch, max_iter=epochs, n_iter_no_change=epochs,
            learning_rate_init=0.001, random_state=0, **given,
        )  # fmt: skip
        model.fit(x, y)

    return turns_of(fit)


if __name__ == "__main__":
    serve(lambda: start(*sys.argv[1:]))
