"""The program that workers run for `karp fit`: `program.py DIR/fit.json` trains, and the leader writes the model file.

It says all that a user learns at the end: the table of scores, where the model is, and how to predict. So a run that
was interrupted and is resumed ends as any other.
"""

import shlex
import sys
from pathlib import Path

from karp.errors import DataError, RecordError
from karp.monitor import streams
from karp.record.files import reason
from karp.tabular import report
from karp.tabular.job import Job
from karp.tabular.model_file import write
from karp.tabular.preparation.prepared import open_prepared
from karp.tabular.training import Test, finish, train


def main(path: Path) -> None:
    """Do the job in a file as one of the workers of its run."""
    job = Job.read(path)
    if not Path(job.manifest).exists():
        raise DataError(f"the fit in {path.parent} has ended, and its prepared table is gone; its model: {job.output}")
    prepared = open_prepared(job.manifest)
    network, trainer = train(prepared, job.recipe, job.score)
    if not trainer.main:
        return
    test = None if job.test is None else Test(job.test, job.weight)
    model = finish(prepared, job.recipe, job.score, network, job.beside, test)
    try:
        digest = write(job.output, model.fitted)
    except OSError as error:
        go_on = shlex.join(["karp", "launch", "--resume", str(path.parent), "-n", "1"])
        why = f"the model cannot be written to {job.output}: {reason(error)}"
        raise RecordError(f"{why}; once it can be, this does it without training again: {go_on}") from None
    lines = ["", *report.scores_table(model.fitted.results, job.score)]
    lines += ["", *report.model_lines(job.output, digest)]
    with streams.command():  # a name that standard output cannot encode is no reason to fail
        print("\n".join(lines))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (DataError, RecordError) as error:  # it says all that a user can do; where karp has raised it says nothing
        sys.exit(f"karp: {error}")
