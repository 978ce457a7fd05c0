"""A fitted model: what `karp.fit` returns and `karp.load` reads, which predicts rows, and tells its scores and columns.

Theory of operation. A table is read in batches, each is converted by the learnt types, scaled, and predicted by the
network in pieces of one size; so memory does not grow with the rows, and a row is predicted to the same bits alone and
wherever it stands in a table. One row alone takes a shorter way to the network (`columns/one_row.py`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.errors import DataError, SettingError
from karp.record.files import same_file
from karp.tabular import evaluating, model_file
from karp.tabular.columns.cell_text import Kind, cell
from karp.tabular.columns.cells import Cells, level_of
from karp.tabular.columns.converting import Converted, Converter
from karp.tabular.columns.one_row import RowConverter
from karp.tabular.columns.sources import open_cells
from karp.tabular.model_file import Fitted
from karp.tabular.network.network import TabularNetwork
from karp.tabular.output import Columns, writing
from karp.tabular.scores import Scores

Array = NDArray[Any]
_TIMES = {"date": Kind.DATE, "clock": Kind.CLOCK}


class Model:
    """A fitted model.

    Attributes:
        fitted: all of it as plain data, as the model file has it.
        classes: the classes, in the order of their probabilities: numbers or truth values if all are, else texts; ()
            for regression.
        network: the network with its weights.
    """

    def __init__(self, fitted: Fitted) -> None:
        """Make the network; raises DataError if the weights are not its parameters."""
        self.fitted = fitted
        outputs = len(fitted.target.classes) or 1
        self.network = TabularNetwork(fitted.schema, fitted.preprocessing, outputs, fitted.recipe)
        try:
            self.network.parameters.load(fitted.weights)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"the weights are not those of the model's network: {error}") from None
        self._predictor = self.network.predictor()
        self.classes = _values(fitted.target.classes)
        self._row = RowConverter(fitted.schema)

    def __repr__(self) -> str:
        from karp.tabular import report

        columns = report.columns_line(self.fitted.schema)
        return f"<karp model of {report.target_line(self.fitted.target)}; from {columns}>"

    def _repr_html_(self) -> str:
        from karp.tabular import report

        return report.html(self.fitted)

    def predict(self, rows: Any, *, strict: bool = False) -> Any:
        """Return the class or the number of each row, (n,); of one row, a dict or a row of a frame, that alone.

        A predicted date is a number of Unix seconds, a time of day seconds since midnight.

        Args:
            rows: the path of a file, a frame, a dict of columns or an array, as for `karp.fit`; or one row, a mapping
                of the names of columns to cells. Columns that the model does not need may be there or not.
            strict: whether a level that training had not is an error; else there is a warning that counts them.

        Raises:
            DataError: a column is missing or of another type, or with `strict` a level is unknown.
        """
        if (row := _as_row(rows)) is not None:
            output = self._predict_row(row, strict)
            return (self.classes[int(output.argmax())] if len(self.classes) else output[0]).item()
        outputs = self._collect(rows, strict, self.outputs)
        return self.classes[outputs.argmax(axis=1)] if len(self.classes) else outputs

    def predict_proba(self, rows: Any, *, strict: bool = False) -> NDArray[np.float32]:
        """Return the probability of each class for each row, (n, classes), or (classes,) for one row.

        Arguments and errors are those of `predict`; a model of numbers raises a SettingError.
        """
        if not len(self.classes):
            raise SettingError(f"{self.fitted.target.name!r} is a number: there are no probabilities, so call predict")
        if (row := _as_row(rows)) is not None:
            return self._predict_row(row, strict)
        return self._collect(rows, strict, self.outputs)

    def encode(self, rows: Any, *, strict: bool = False) -> NDArray[np.float32]:
        """Return the inputs of the network's first layer for each row, (n, inputs), or (inputs,) for one row.

        They are scaled numbers, pieces of their bins, and ones at the levels of categories (`network/encoding.py`).
        Arguments and errors are those of `predict`.
        """
        if (row := _as_row(rows)) is not None:
            encoded: NDArray[np.float32] = self._collect(_as_table(row), strict, self._encoded)[0]
            return encoded
        return self._collect(rows, strict, self._encoded)

    def evaluate(self, source: Any, *, weight: str | None = None) -> Scores:
        """Return the scores by name on a table that has the target; `weight` names a column of weights.

        Raises DataError for a table that lacks a column or has one of another type, and where no row has a target.
        """
        evaluated = self.evaluated(source, weight)
        for note in evaluated.notes:
            warnings.warn(note, stacklevel=2)
        return evaluated.results["karp"]

    def evaluated(self, source: Any, weight: str | None = None) -> evaluating.Evaluated:
        """Return the scores of the model and of its baseline on a table; arguments and errors are `evaluate`'s."""
        return evaluating.evaluate(source, self.fitted.schema, self.fitted.target, self.predictors(), weight)

    def predictors(self) -> dict[str, evaluating.Predict]:
        """Return what predicts converted rows: the model, and the baseline, which knows no column."""
        return {"karp": self.outputs, **baseline(self.fitted)}

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the model file, and return the SHA-256 of its content; raises OSError if it cannot be written."""
        return model_file.write(path, self.fitted)

    def outputs(self, rows: Converted) -> Array:
        """Return what rows are predicted as: probabilities (n, classes), or (n,) numbers in the target's units."""
        numbers = self.fitted.preprocessing.scale(rows.numbers)
        predicted = self._predictor(numbers, rows.categories)
        if len(self.classes):
            return predicted
        return predicted[:, 0].astype(np.float64) * self.fitted.deviation + self.fitted.mean

    def write_predictions(
        self, source: Any, path: str | None = None, *, proba: bool = False, strict: bool = False
    ) -> tuple[int, list[str]]:
        """Predict a table of any size, and write a row for each of its rows, in their order.

        The file at `path` is Parquet or CSV, by its name; None is CSV on standard output. Its column has the target's
        name; with `proba` there is one for each class, too, such as `species.Adelie`. Returns the number of rows, and
        notes on cells that the model does not know.
        """
        if proba and not len(self.classes):
            raise SettingError(f"{self.fitted.target.name!r} is a number: it is predicted without probabilities")
        if path is not None and same_file(Path(path), [source]):
            raise SettingError(f"{path}: the predictions would take the place of the table: name another file")
        with writing(path) as write, open_cells(source, known=self.fitted.schema.inputs) as cells:
            converter = Converter(self.fitted.schema, cells.name, cells.names)
            count = 0
            for outputs in self._mapped(cells, converter, strict, self.outputs):
                write(self._columns(outputs, proba))
                count += len(outputs)
            if not count:
                write(self._columns(np.empty((0, max(1, len(self.classes)))), proba))
            return count, evaluating.notes_of(converter, cells.name)

    def _columns(self, outputs: Array, proba: bool) -> Columns:
        """Return the columns of a file of predictions."""
        target = self.fitted.target
        if not target.classes:
            times = _TIMES.get(target.kind)
            values = outputs.reshape(-1)
            if times is not None:
                values = np.array([level_of(times, round(seconds)) for seconds in values.tolist()], object)
            return {target.name: values}
        columns = {target.name: self.classes[outputs.argmax(axis=1)]}
        if proba:
            columns |= {f"{target.name}.{name}": outputs[:, place] for place, name in enumerate(target.classes)}
        return columns

    def _predict_row(self, row: Mapping[Any, Any], strict: bool) -> Array:
        """Return the output of one row."""
        converted = self._row.convert(row)
        if converted is not None:
            return self.outputs(converted)[0] if len(self.classes) else self.outputs(converted)
        output: Array = self._collect(_as_table(row), strict, self.outputs, stacklevel=5)
        return output[0] if len(self.classes) else output

    def _encoded(self, rows: Converted) -> Array:
        return self.network.encoding.as_matrix(self.fitted.preprocessing.scale(rows.numbers), rows.categories)

    def _collect(
        self, source: Any, strict: bool, function: Callable[[Converted], Array], stacklevel: int = 4
    ) -> Array:  # fmt: skip
        """Return a function of the rows of a table, and warn of what it has that the model does not know."""
        with open_cells(source, known=self.fitted.schema.inputs) as cells:
            converter = Converter(self.fitted.schema, cells.name, cells.names)
            outputs = list(self._mapped(cells, converter, strict, function))
        for note in evaluating.notes_of(converter, cells.name):
            warnings.warn(note, stacklevel=stacklevel - 1)
        schema = self.fitted.schema
        none = Converted(np.empty((0, len(schema.numbers))), np.empty((0, len(schema.categories)), np.int32))
        return np.concatenate(outputs) if outputs else function(none)

    def _mapped(
        self, cells: Cells, converter: Converter, strict: bool, function: Callable[[Converted], Array]
    ) -> Iterator[Array]:
        """Yield a function of the rows of a table, a batch at a time."""
        for batch in cells.batches(converter.read):
            converted = converter.convert(batch)
            if strict:
                _refuse_unknown(converter, cells.name)
            yield function(converted)
        converter.finish()


def load(path: str | os.PathLike[str]) -> Model:
    """Read a model file; raise DataError if it cannot be read, is damaged, or is none of this karp's."""
    fitted = model_file.read(path)
    try:
        return Model(fitted)
    except DataError as error:
        raise DataError(f"the model file {os.fspath(path)!r}: {error}") from None


def baseline(fitted: Fitted) -> dict[str, evaluating.Predict]:
    """Return the predictor that knows no column, under its name: shares of classes, or the mean."""
    if fitted.target.classes:
        shares = np.array(fitted.shares)
        return {"majority": lambda rows: np.broadcast_to(shares, (len(rows.numbers), len(shares)))}
    return {"mean": lambda rows: np.full(len(rows.numbers), fitted.mean)}


def _as_row(rows: Any) -> Mapping[Any, Any] | None:
    """Return one row as a mapping; None if `rows` is a table."""
    if isinstance(rows, Mapping):
        for given in rows.values():  # a dict of columns has a sequence in each
            return rows if isinstance(given, str) or given is None or not hasattr(given, "__len__") else None
        return None
    if type(rows).__name__ == "Series" and hasattr(rows, "index"):  # of pandas
        return dict(zip(rows.index.tolist(), rows.tolist(), strict=True))  # a third of the time of `to_dict`
    return None


def _as_table(row: Mapping[Any, Any]) -> dict[Any, list[Any]]:
    return {name: [cell] for name, cell in row.items()}


def _values(classes: tuple[str, ...]) -> Array:
    """Return classes as what they stand for: numbers or truth values if all are, else texts.

    >>> _values(("0", "1")), _values(("false", "true")).dtype
    (array([0, 1]), dtype('bool'))
    """
    if set(classes) == {"false", "true"}:
        return np.array([name == "true" for name in classes])
    cells = [cell(name) for name in classes]
    if not cells or any(each.kind is not Kind.NUMBER or abs(each.value) >= 2**53 for each in cells):
        return np.array(classes, str)
    values = np.array([each.value for each in cells])
    return values.astype(np.int64) if (values == np.floor(values)).all() else values


def _refuse_unknown(converter: Converter, table: str) -> None:
    """Raise DataError if a cell is of a level that training had not."""
    for name, report in converter.reports.items():
        if report.unknown:
            raise DataError(f"{table}, column {name!r}: training had no such level ({', '.join(report.first)}): "
                            "predict without strict to have it counted as unknown")  # fmt: skip
