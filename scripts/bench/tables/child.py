"""The process of a contestant: imports its library, then fits and predicts as it is asked to.

    python -m bench.tables.child NAME       commands of `contest.serve`: `fit JOB`, a JSON object

What is timed goes from the training file to the model. Importing the library is not part of it, where it can be done
before; karp imports what it uses when it is first used, which counts.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Mapping

from bench.contest import Answer, serve
from bench.tables import scoring
from bench.tables.contestants import CONTESTANTS, Contestant, Job


def fit(contestant: Contestant, job: Job, test: str, truth: str) -> Answer:
    """Fit, then score: {score, seconds, rows, test_rows, version}. The truth is read when all is predicted."""
    import pandas as pd

    start = time.perf_counter()
    predict = contestant.fit(job)
    seconds = time.perf_counter() - start
    predicted = predict(test)
    # Classes stay the text that they are in the file: a class called NA, say, is none that is missing.
    types = str if job.score == "accuracy" else float
    wanted = pd.read_csv(truth, dtype=types, keep_default_na=False)[job.target].to_numpy()
    rows = len(pd.read_csv(job.train, usecols=[job.target]))
    return {
        "score": scoring.score(job.score, wanted, predicted), "seconds": seconds, "rows": rows,
        "test_rows": len(wanted), "version": version(contestant.package),
    }  # fmt: skip


def version(package: str) -> str:
    """Return the version of a package; karp's own need not be installed."""
    if package == "karp":
        import karp

        return karp.__version__
    return importlib.metadata.version(package)


def main() -> None:
    """Serve one contestant."""
    contestant = CONTESTANTS[sys.argv[1]]

    def answer(argument: str) -> Answer:
        given = json.loads(argument)
        return fit(contestant, Job(**given["job"]), given["test"], given["truth"])

    def start() -> Mapping[str, Callable[[str], Answer]]:
        for name in contestant.modules:
            importlib.import_module(name)
        return {"fit": answer}

    serve(start)


if __name__ == "__main__":
    main()
