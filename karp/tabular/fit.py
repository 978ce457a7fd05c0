"""`karp.fit`: from a table to a model.

Theory of operation. This process prepares the table, as only it may have it (a frame, a notebook's variable), and then
trains here, or has a launcher train with several workers (`launching.py`), which run karp's own program on the prepared
table. So nobody's code is pickled or imported twice, and `karp.fit` works in a script without `if __name__`, in a
session and in a notebook.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

from karp import checks, environment
from karp.errors import ProgramError, RecordError, SettingError
from karp.launch.options import cores
from karp.monitor import streams
from karp.record.files import is_stream, reason, same_file
from karp.record.paths import PREPARED, check_unused
from karp.record.prepared_tables import lock_prepared, remove_leftovers
from karp.tabular import report
from karp.tabular.columns.sources import open_cells
from karp.tabular.columns.target import Task
from karp.tabular.console import Console
from karp.tabular.job import FILE, Job, launch_arguments
from karp.tabular.launching import launch
from karp.tabular.model import Model, load
from karp.tabular.model_file import Results
from karp.tabular.network.recipe import Recipe
from karp.tabular.preparation.prepared import Prepared
from karp.tabular.preparation.preparing import MEMORY, prepare
from karp.tabular.scores import SCORES, score_for
from karp.tabular.training import Test, finish, references, train
from karp.trainer import script
from karp.trainer.interrupts import raising


class Ready(NamedTuple):
    """What is decided before the training: the prepared table, the recipe, what it is compared with, the workers."""

    prepared: Prepared
    recipe: Recipe
    score: str
    beside: Results
    workers: int

    def job(self, output: str, test: str | None = None, weight: str | None = None) -> Job:
        """Return the job for workers; the prepared table has to be on the disk."""
        return Job(str(self.prepared.manifest), output, self.recipe, self.score, self.beside, test, weight)


def fit(
    source: Any,
    *,
    target: str,
    n_jobs: int | None = None,
    validation: Any = 0.2,
    test: Any = None,
    score: str | None = None,
    task: Task | None = None,
    weight: str | None = None,
    class_weight: Literal["balanced"] | None = None,
    numeric: Collection[str] = (),
    categorical: Collection[str] = (),
    drop: Collection[str] = (),
    seed: int = 0,
    memory: int = MEMORY,
    output: str | os.PathLike[str] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    show: bool = True,
    **recipe: Any,
) -> Model:
    """Fit a model to a table: type the columns, train a network on them, and keep its best epoch.

    The result does not depend on `n_jobs`, bit by bit.

    Args:
        source: the path of a file (CSV, also .gz, Parquet, Feather, NPZ), a frame of pandas, polars or pyarrow, a dict
            of columns, or an array (n, d).
        target: the column to predict.
        n_jobs: the worker processes; all cores unless given. 1 trains in this process.
        validation: the share of the rows that the best epoch is chosen on; or another file or frame.
        test: a file or frame to score the fitted model on; it has no influence on it.
        score: what the best epoch is chosen by: "accuracy" (unless given), "log_loss" or "auc" for classes, "rmse"
            (unless given) or "r2" for numbers.
        task, weight, class_weight, numeric, categorical, drop, memory: those of `karp.prepare`.
        seed: of the split, the order of rows and the initial weights.
        output: where the model file is written; `save` of the result does that, too.
        run_dir: the directory of the run's files; without it there are none when the fit has ended.
        show: whether progress and scores are shown on standard error.
        recipe: fields of the recipe that are to differ from its defaults, such as `epochs=64, members=8`.

    Raises:
        DataError: the table cannot be used.
        SettingError: an argument cannot be used.
        RunError: the training has failed.
        ProgramError: a launcher has started this program.
        RecordError: a file cannot be written.

    >>> model = fit({"size": [1, 2, 3, 4] * 10, "kind": ["a", "a", "b", "b"] * 10}, target="kind", n_jobs=1, show=False)
    >>> model.predict({"size": 1}), model.predict({"size": [4, 3]}).tolist()
    ('a', ['b', 'b'])
    """
    if environment.read(environment.SERVER):
        raise ProgramError("karp.fit launches its own workers: run this program with python, not karp launch")
    if output is not None:
        check_output(Path(output).absolute(), source, validation, test)
    console = Console(streams.for_progress() if show else None)
    given = environment.given_directory(run_dir)
    with ExitStack() as stack:
        stack.enter_context(raising(script.is_script()))  # so a signal that ends this process leaves no files
        directory = _directory(given, stack, n_jobs, console)
        stack.enter_context(environment.hidden(environment.RUN_DIR))  # what is trained in this process leaves no files
        ready = make_ready(
            source, console, n_jobs=n_jobs, test=test, score=score, recipe=recipe, target=target, task=task,
            weight=weight, class_weight=class_weight, numeric=numeric, categorical=categorical, drop=drop,
            validation=validation, seed=seed, memory=memory, directory=directory,
        )  # fmt: skip
        tested = None if test is None else Test(test, weight)
        if directory is None or (given is None and ready.workers == 1):
            watch = console.watch("training", ready.recipe.epochs, SCORES[ready.score])
            network, _ = train(ready.prepared, ready.recipe, ready.score, watch, record=False, show=False)
        else:
            job = ready.job(str(directory / "model.safetensors"))
            write_job(job, directory)
            stream = sys.stderr if show else None
            launch(ready.workers, directory, launch_arguments(directory), stream, kept=given is not None)
            network = load(job.output).network
        model = finish(ready.prepared, ready.recipe, ready.score, network, ready.beside, tested)
    console.table(report.scores_table(model.fitted.results, ready.score))
    if output is not None:
        try:
            digest = model.save(output)
        except OSError as error:
            raise RecordError(f"the model cannot be written to {os.fspath(output)!r}: {reason(error)}") from None
        console.say("model", report.file_text(os.fspath(output), digest))
    return model


def make_ready(
    source: Any, console: Console, *, n_jobs: int | None, test: Any, score: str | None, recipe: dict[str, Any],
    directory: Path | None, seed: int, weight: str | None, **preparing: Any,
) -> Ready:  # fmt: skip
    """Prepare the table, decide the recipe, and train what the model is compared with; say all that a user must know.

    `recipe` has fields that are to differ from the defaults, `preparing` further arguments of `prepare`.
    """
    wanted = cores() if n_jobs is None else checks.whole("n_jobs", n_jobs, 1, besides=", or left out for all cores")
    Recipe.default("classification", rows=sys.maxsize, seed=seed, **recipe)  # said before a long reading
    _check_test(test)
    folder = None if directory is None else directory / PREPARED
    prepared = prepare(source, seed=seed, weight=weight, directory=folder, progress=console.progress, **preparing)
    chosen = score_for(prepared.target.task, score)
    counts, target = prepared.counts, prepared.target
    console.say("rows", report.rows_line(counts))
    console.say("target", report.target_line(target))
    console.say("columns", report.columns_line(prepared.schema))
    told = {f"column {name!r} is left out: it is to be dropped" for name in preparing["drop"]}
    console.notes([note for note in prepared.notes if note not in told])
    prepared.train.remarks = ()  # as they have been said
    made = Recipe.default(target.task, rows=counts.train, score=chosen.name, seed=seed, **recipe)
    console.say("recipe", report.recipe_line(made))
    workers = min(wanted, made.shards)
    if workers < wanted:
        shards = "is one shard" if made.shards == 1 else f"has {made.shards} shards"
        console.say("workers", f"{workers} of {wanted}, as a batch of {made.batch_size:,} rows {shards}")
    beside, notes = references(prepared, made, chosen.name, console, None if test is None else Test(test, weight))
    console.notes(notes)
    return Ready(prepared, made, chosen.name, beside, workers)


def check_output(output: Path, *tables: Any) -> None:
    """Raise SettingError for a path at which no model file can be written, as far as it can be seen before training.

    Nor may the model take the place of one of the tables.
    """
    if same_file(output, tables):
        raise SettingError(f"the model's file {str(output)!r} is one of the tables, which would be lost: name another")
    if not output.parent.is_dir():
        raise SettingError(f"there is no directory {str(output.parent)!r} for the model: make it, or name another")
    if output.is_dir():
        raise SettingError(f"the model's file {str(output)!r} is a directory: name a file in it")
    if not (is_stream(output) or os.access(output.parent, os.W_OK)):
        raise SettingError(f"the directory {str(output.parent)!r} cannot be written to: name another for the model")


def _check_test(test: Any) -> None:
    """Raise SettingError for a file of test rows that can be read only once, DataError for one that cannot be read."""
    if isinstance(test, str | bytes | os.PathLike):
        path = Path(os.fsdecode(test))
        if path.exists() and not path.is_file():
            raise SettingError(f"test is {str(path)!r}, and is read before and after the training: pass a regular file")
        with open_cells(test):
            pass


def _directory(given: Path | None, stack: ExitStack, n_jobs: int | None, console: Console) -> Path | None:
    """Return the directory of the run; None for a run in this process, which needs none."""
    if given is not None:
        check_unused(given)
        console.notes(remove_leftovers([given]))
        given = given.absolute()
        stack.enter_context(lock_prepared(given, made=not given.exists()))
        return given
    if (cores() if n_jobs is None else n_jobs) == 1:
        return None
    console.notes(remove_leftovers(Path(tempfile.gettempdir()).glob("karp-fit-*")))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="karp-fit-", ignore_cleanup_errors=True)))
    stack.enter_context(lock_prepared(folder, made=False))
    return folder


def write_job(job: Job, directory: Path) -> None:
    """Write the job of a run; raises RecordError if that fails."""
    try:
        job.write(directory / FILE)
    except OSError as error:
        raise RecordError(f"{directory / FILE} cannot be written: {reason(error)}") from None
