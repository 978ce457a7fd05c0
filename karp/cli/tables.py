"""The commands on tables and model files: `karp fit`, `predict`, `evaluate`, `show`, `export`."""

import argparse
import contextlib
import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from karp import environment
from karp.cli.command import Commands, add_kernels
from karp.errors import SettingError
from karp.record.files import same_file
from karp.text import counted

OUTPUT = "model.safetensors"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def add_fit(commands: Commands) -> None:
    command = commands.add_parser(
        "fit",
        help="fit a model to a table: from a file to a model file",
        description="Fit a model to the table in FILE (CSV, also .gz, Parquet, Feather or NPZ): type its columns,\n"
        "train a network with N workers, and write the weights of its best epoch, with all that predicting\n"
        "takes, to one file. Its bytes do not depend on N.",
        epilog="examples:\n  karp fit penguins.csv --target species\n"
        "  karp fit sales.parquet --target price --score r2 --drop id -n 4 -o price.safetensors",
    )
    add = command.add_argument
    add("file", metavar="FILE", help="the table to learn from")
    add("--target", metavar="COLUMN", required=True, help="the column to predict")
    add("-n", "--workers", type=int, metavar="N", help="worker processes (default: all cores)")
    add("-o", "--output", metavar="MODEL", help=f"the model file (default: {OUTPUT}, unless there is one)")
    add("--validation", metavar="SHARE|FILE", default="0.2", help="the share of the rows that the best epoch is chosen "
        "on, or a file of other rows (default: 0.2)")  # fmt: skip
    add("--test", metavar="FILE", help="rows to score the model on, which have no influence on it")
    add("--score", metavar="NAME", help="what the best epoch is chosen by: accuracy, log_loss, auc, rmse, r2 (default: "
        "accuracy, or rmse)")  # fmt: skip
    add("--task", choices=["classification", "regression"], help="whether the target has classes or is a number "
        "(default: found out)")  # fmt: skip
    columns: dict[str, Any] = {"metavar": "A,B", "action": "append", "default": []}
    add("--numeric", help="columns that are numbers, whatever they hold", **columns)
    add("--categorical", help="columns that are categories, whatever they hold", **columns)
    add("--drop", help="columns to leave out; each of these three can be repeated, and a name with a comma stands in "
        "double quotes, as in a CSV file: --drop id --drop '\"sales, net\",tax'", **columns)  # fmt: skip
    add("--weight", metavar="COLUMN", help="a column that says how much each row counts")
    add("--class-weight", choices=["balanced"], help="have all classes count alike in training")
    add("--epochs", type=int, metavar="E", help="how often each row is used (default: by rows)")
    add("--members", type=int, metavar="K", help="networks that share their layers, and are averaged (default: 1)")
    add("--recipe", metavar="NAME=VALUE", action="append", default=[], help="any other field of the recipe, such as "
        "batch_size=256 (karp show --json has them all)")  # fmt: skip
    add("--seed", type=int, metavar="S", default=0, help="of everything that is left to chance (default: 0)")
    add("--memory", metavar="SIZE", default="1GB", help="what preparing the table may hold (default: 1GB)")
    add("--run-dir", metavar="DIR", help="where the run's files go (default: a fresh folder under runs/)")
    add_kernels(command)
    command.set_defaults(command=run_fit)


def run_fit(options: argparse.Namespace) -> int:
    if options.kernels is not None:
        os.environ.update(environment.kernel_variables(options.kernels))  # before this imports NumPy
    from karp.tabular.command import fit_file

    output = Path(OUTPUT if options.output is None else options.output)
    if options.output is None and output.exists():
        raise SettingError(f"there is a {OUTPUT} already: name the new model with -o, or remove it")
    recipe = dict(map(_field, options.recipe))
    for name in ("seed", "task"):
        if name in recipe:
            raise SettingError(f"--recipe {name}={recipe[name]}: that is an option of its own, --{name}")
    recipe |= {name: value for name in ("epochs", "members") if (value := getattr(options, name)) is not None}
    try:
        validation: Any = float(options.validation)
    except ValueError:
        validation = options.validation
    return fit_file(
        options.file, output, options.run_dir, options.test, n_jobs=options.workers, score=options.score,
        seed=options.seed, memory=size(options.memory), weight=options.weight, recipe=recipe, target=options.target,
        task=options.task, class_weight=options.class_weight, validation=validation,
        numeric=_names("--numeric", options.numeric), categorical=_names("--categorical", options.categorical),
        drop=_names("--drop", options.drop),
    )  # fmt: skip


def _names(option: str, texts: list[str]) -> tuple[str, ...]:
    """Return the names of columns in the values of an option, each a line of CSV; raise SettingError if one is none.

    >>> _names("--drop", ["id", ' a, "b, c"'])
    ('id', 'a', 'b, c')
    """
    names: list[str] = []
    for text in texts:
        try:
            lines = list(csv.reader(io.StringIO(text.strip(), newline=""), skipinitialspace=True, strict=True))
        except csv.Error as error:
            raise SettingError(f"{option} is {text!r}: {error}: write a name with a comma or quotes in double quotes, "
                               "and its own quotes twice") from None  # fmt: skip
        names += [name.strip() for line in lines for name in line]
    return tuple(names)


def _field(text: str) -> tuple[str, Any]:
    """Return name and value of a field of the recipe; raise SettingError unless the text is NAME=VALUE.

    >>> _field("batch_size=256"), _field("activation=mish")
    (('batch_size', 256), ('activation', 'mish'))
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise SettingError(f"--recipe is {text!r}: write a field and its value, such as batch_size=256")
    with contextlib.suppress(ValueError):
        return name, json.loads(value)
    return name, value


def size(text: str) -> int:
    """Return a number of bytes; raise SettingError for a text that is none.

    >>> size("64MB"), size("1.5 GB"), size("2000000")
    (64000000, 1500000000, 2000000)
    """
    plain = text.replace(" ", "").lower().removesuffix("b")
    unit = plain[-1:] if plain[-1:] in _UNITS else ""
    try:
        return int(float(plain.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError):
        raise SettingError(f"{text!r} is no size: write a number of bytes, or one like 64MB or 2GB") from None


def add_predict(commands: Commands) -> None:
    command = commands.add_parser(
        "predict",
        help="predict the rows of a table with a model file",
        description="Predict each row of FILE, which may be of any size, and write one row for each, in their order.\n"
        "Columns that the model does not need may be there or not.",
        epilog="examples:\n  karp predict model.safetensors new.csv -o predicted.csv\n"
        "  karp predict model.safetensors new.parquet --proba -o predicted.parquet",
    )
    add = command.add_argument
    add("model", metavar="MODEL", help="a model file")
    add("file", metavar="FILE", help="the table to predict")
    add("-o", "--output", metavar="OUT", help="a .csv or .parquet file (default: CSV on standard output)")
    add("--proba", action="store_true", help="a column with the probability of each class, too")
    add("--strict", action="store_true", help="refuse a level that training had not, instead of counting it")
    command.set_defaults(command=run_predict)


def run_predict(options: argparse.Namespace) -> int:
    from karp.tabular.model import load
    from karp.trainer.interrupts import raising

    with raising(script=True):  # a signal leaves no part of a file
        rows, notes = load(options.model).write_predictions(
            options.file, options.output, proba=options.proba, strict=options.strict
        )
    _say(*notes)
    if options.output is not None:
        _say(f"{counted(rows, 'row')} predicted, in {options.output}")
    return 0


def _say(*lines: str) -> None:
    """Print lines of karp's own on standard error, beside what the command prints."""
    for line in lines:
        print(f"karp: {line}", file=sys.stderr)


def add_evaluate(commands: Commands) -> None:
    command = commands.add_parser(
        "evaluate",
        help="score a model file on a table",
        description="Score a model on the rows of FILE that have a target, beside the baseline, which knows no column.",
        epilog="example:\n  karp evaluate model.safetensors test.csv",
    )
    add = command.add_argument
    add("model", metavar="MODEL", help="a model file")
    add("file", metavar="FILE", help="a table with the target")
    add("--weight", metavar="COLUMN", help="a column that says how much each row counts")
    add("--json", action="store_true", help="print the scores as JSON")
    command.set_defaults(command=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> int:
    from karp.tabular.model import load
    from karp.tabular.report import scores_table

    model = load(options.model)
    results, rows, notes = model.evaluated(options.file, options.weight)
    _say(*notes)
    if options.json:
        plain = {name: {score: number if number == number else None for score, number in scores.items()}
                 for name, scores in results.items()}  # fmt: skip
        print(json.dumps({"rows": rows, "scores": plain}, indent=2))
    else:
        part = counted(rows, "row")
        print("\n".join(scores_table({part: results}, model.fitted.score)))
    return 0


def add_show(commands: Commands) -> None:
    command = commands.add_parser(
        "show",
        help="show what is in a model file",
        description="Show the columns of a model with their types, its recipe, scores and sizes.",
    )
    command.add_argument("model", metavar="MODEL", help="a model file")
    command.add_argument("--json", action="store_true", help="print all of it but the weights, as JSON")
    command.set_defaults(command=run_show)


def run_show(options: argparse.Namespace) -> int:
    import hashlib

    from karp.tabular import model_file, report

    content = model_file.read_bytes(options.model)
    fitted = model_file.from_bytes(content, options.model)
    digest = hashlib.sha256(content).hexdigest()
    if options.json:
        print(json.dumps(report.plain_show(fitted, len(content), digest), indent=2))
    else:
        print("\n".join(report.show(fitted, len(content), digest)))
    return 0


def add_export(commands: Commands) -> None:
    command = commands.add_parser(
        "export",
        help="write a model file for other runtimes: as ONNX, or in torch's layout",
        description="Write the model in MODEL as an ONNX file, from raw columns to label and probabilities, for\n"
        "onnxruntime and others. Each column that the model uses is an input: a number or time of day as float64,\n"
        "a date as int64 (Unix seconds), a category as string. Or write its weights as a state dict of torch.",
        epilog="examples:\n  karp export model.safetensors model.onnx\n"
        "  karp export model.safetensors torch.safetensors --layout torch",
    )
    command.add_argument("model", metavar="MODEL", help="a model file; with --layout also a run's weights")
    command.add_argument("output", metavar="OUT", help="an .onnx file, or with --layout a .safetensors file")
    command.add_argument("--layout", choices=["torch"], help="weights as (outputs, inputs), named as in a "
        "torch.nn.Sequential")  # fmt: skip
    command.set_defaults(command=run_export)


def run_export(options: argparse.Namespace) -> int:
    from karp import export
    from karp.parameters import weights_file
    from karp.tabular.model import load

    ending = ".onnx" if options.layout is None else ".safetensors"
    if not options.output.endswith(ending):
        raise SettingError(f"{options.output!r}: name a file that ends with {ending}")
    if same_file(Path(options.output), [options.model]):
        raise SettingError(f"{options.output}: it would take the place of the model: name another file")
    if options.layout is None:
        export.onnx(load(options.model), options.output)
    else:
        is_run = weights_file.KEY in weights_file.read(options.model)[1]
        export.torch(options.model if is_run else load(options.model), options.output)
    return 0
