"""A model: rows of any kind are predicted alike, and what does not fit is named."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import PRICE, ROW, SPECIES, TABLE, fitted

from karp.errors import DataError, SettingError
from karp.tabular.columns.column_types import Number
from karp.tabular.columns.target import Target
from karp.tabular.model import Model

pytestmark = pytest.mark.filterwarnings("ignore:.*of a level that training had not", "ignore:.*rows? ")


def rows_of(table: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]


def without(*names: str) -> dict[str, list[Any]]:
    return {name: column for name, column in TABLE.items() if name not in names}


@pytest.mark.parametrize("target", [SPECIES, PRICE], ids=["classes", "numbers"])
def test_a_row_alone_is_the_row_of_its_table(target: Target) -> None:
    model = Model(fitted(target))
    alone = [model.predict(row) for row in rows_of(TABLE)]
    assert model.predict(TABLE).tolist() == alone
    if target.classes:
        together = model.predict_proba(TABLE)
        assert ((5, 3), np.float32) == (together.shape, together.dtype)
        assert together.tobytes() == np.stack([model.predict_proba(row) for row in rows_of(TABLE)]).tobytes()
        np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-6)


def test_a_model_says_what_it_is() -> None:
    assert "<karp model of price: a number; from 1 number, 2 categories, 1 date, 1 clock; 1 left out>" == repr(
        Model(fitted(PRICE))
    )


def test_one_row_gives_one_value() -> None:
    assert type(Model(fitted()).predict(ROW)) is str
    assert type(Model(fitted(PRICE)).predict(ROW)) is float
    assert (3,) == Model(fitted()).predict_proba(ROW).shape


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("0", "1"), 1),
        (("-1", "2.5"), 2.5),
        (("false", "true"), True),
        (("a", "1"), "1"),
        (("1", str(1 << 60)), str(1 << 60)),
    ],
)
def test_a_class_is_what_it_stands_for(classes: tuple[str, ...], expected: Any) -> None:
    model = Model(fitted(Target("y", "level", classes)))
    assert (expected, type(expected)) == (model.classes[1].item(), type(model.classes[1].item()))


def test_frames_give_what_their_files_give(tmp_path: Path) -> None:
    model = Model(fitted())
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([TABLE, *zip(*TABLE.values(), strict=True)])
    expected = model.predict_proba(TABLE)
    frames: list[Any] = []
    pandas, polars, arrow = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    frames = [path, pandas.DataFrame(TABLE), polars.DataFrame(TABLE), arrow.table(TABLE)]
    for frame in frames:
        assert expected.tobytes() == model.predict_proba(frame).tobytes()
    for place, row in enumerate(expected):
        assert row.tobytes() == model.predict_proba(frames[1].iloc[place]).tobytes()
        assert row.tobytes() == model.predict_proba(frames[2].row(place, named=True)).tobytes()


def test_no_rows_give_no_rows(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    none: dict[str, list[Any]] = {name: [] for name in TABLE}
    model = Model(fitted())
    assert (0,) == model.predict(none).shape
    assert (0, 3) == model.predict_proba(none).shape
    assert (0,) == Model(fitted(PRICE)).predict(none).shape
    assert (0, []) == model.write_predictions(none, str(tmp_path / "p.csv"), proba=True)
    assert "species,species.Adelie,species.Gentoo,species.Chin strap\n" == (tmp_path / "p.csv").read_text()
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    model.write_predictions(none, str(tmp_path / "p.parquet"))
    assert (0, ["species"]) == ((read := parquet.read_table(tmp_path / "p.parquet")).num_rows, read.column_names)


def test_a_column_that_is_missing_or_of_another_type_is_named() -> None:
    model = Model(fitted())
    with pytest.raises(DataError, match="there is no column 'age' among"):
        model.predict(without("age"))
    with pytest.raises(DataError, match="there is no column 'age', 'rises' among"):
        model.predict({name: cell for name, cell in ROW.items() if name not in ("age", "rises")})
    for wrong in ({"age": "old"}, {"born": "soon"}, {"age": True}):
        (name,) = wrong
        with pytest.raises(DataError, match=f"column '{name}': the model knows it as"):
            model.predict(ROW | wrong)
        with pytest.raises(DataError, match=f"column '{name}': the model knows it as"):
            model.predict({column: [cell] * 3 for column, cell in (ROW | wrong).items()})


def test_an_unknown_level_is_counted_or_refused() -> None:
    model = Model(fitted())
    with pytest.warns(UserWarning, match=r"column 'city': 1 of 5 cells is .* \(row 2: 'Chur'\)") as seen:
        model.predict(TABLE)
    assert __file__ == seen[0].filename
    with pytest.warns(UserWarning, match="column 'city': 1 of 1 cell is of a level") as seen:
        model.predict(ROW | {"city": "Chur"})
    assert __file__ == seen[0].filename
    for rows in (TABLE, ROW | {"city": "Chur"}):
        with pytest.raises(DataError, match=r"column 'city': training had no such level \(row \d: 'Chur'\)"):
            model.predict(rows, strict=True)
    assert model.predict(ROW) == model.predict(ROW, strict=True)


def test_scores_pass_over_rows_without_a_target_and_count_unknown_classes_as_wrong() -> None:
    model = Model(fitted())
    results, rows, notes = model.evaluated(TABLE)
    assert (["karp", "majority"], 4) == (list(results), rows)
    right = model.predict(TABLE)[[0, 1, 3]] == ["Adelie", "Gentoo", "Chin strap"]
    assert right.sum() / 4 == results["karp"]["accuracy"]
    assert "the table: 1 of 5 rows have no target in 'species' and are left out" == notes[0]
    assert "rows have classes that training had not (row 4: 'Emperor'): they count as wrong" in notes[1]
    with pytest.raises(DataError, match=r"there is no column 'species' among .* and scores need it"):
        model.evaluate(without("species"))
    weighted = TABLE | {"w": [1.0, 1.0, 1.0, 0.0, 0.0]}
    results, rows, notes = model.evaluated(weighted, "w")
    assert (2, right[:2].sum() / 2) == (rows, results["karp"]["accuracy"])
    assert "the table: 2 of 5 rows have the weight 0 and are left out" == notes[1]
    with pytest.raises(DataError, match="there is no row with a target in 'species' and a weight above 0, so"):
        model.evaluate(TABLE | {"w": [0.0] * 5}, weight="w")
    with pytest.raises(DataError, match="there is no row with a target"):
        model.evaluate({name: column[2:3] for name, column in TABLE.items()})


def test_scores_of_numbers_are_in_the_target_s_units() -> None:
    model = Model(fitted(PRICE))
    predicted = model.predict(TABLE)
    assert pytest.approx(3) == model.evaluate(TABLE | {"price": predicted + np.array([3, -3, 3, -3, 3])})["rmse"]
    weighted = TABLE | {"price": predicted + np.array([0, 5, 5, 5, 5]), "w": [1, 0, 0, 0, 0]}
    assert 0 == model.evaluate(weighted, weight="w")["rmse"]


def test_predictions_in_a_file_are_those_of_predict(tmp_path: Path) -> None:
    model = Model(fitted())
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    for name in ("p.csv", "p.parquet"):
        count, notes = model.write_predictions(TABLE, str(tmp_path / name), proba=True)
        assert (5, 1) == (count, len(notes))
    table = parquet.read_table(tmp_path / "p.parquet").to_pydict()
    assert model.predict(TABLE).tolist() == table.pop("species")
    assert model.predict_proba(TABLE).tobytes() == np.array([*table.values()], np.float32).T.tobytes()
    with (tmp_path / "p.csv").open(newline="") as file:
        names, *cells = csv.reader(file)
    assert ["species", *table] == names
    assert model.predict_proba(TABLE).tobytes() == np.array([row[1:] for row in cells], np.float32).tobytes()


def test_a_file_that_cannot_be_whole_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="training had no such level"):
        Model(fitted()).write_predictions(TABLE, str(tmp_path / "p.csv"), strict=True)
    with pytest.raises(SettingError, match=r"end the name in \.csv or \.parquet"):
        Model(fitted()).write_predictions(TABLE, str(tmp_path / "p.xlsx"))
    assert [] == list(tmp_path.iterdir())


def test_times_are_written_as_times(tmp_path: Path) -> None:
    for kind, expected in (("date", "1970-01-01 00:0"), ("clock", "00:0")):
        Model(fitted(Target("when", kind))).write_predictions(TABLE, str(tmp_path / "p"))  # type: ignore[arg-type]
        name, first, *_ = (tmp_path / "p").read_text().splitlines()
        assert ("when", expected) == (name, first[: len(expected)])


def test_numbers_have_no_probabilities() -> None:
    model = Model(fitted(PRICE))
    with pytest.raises(SettingError, match="'price' is a number: there are no probabilities"):
        model.predict_proba(ROW)
    with pytest.raises(SettingError, match="'price' is a number"):
        model.write_predictions(TABLE, None, proba=True)


def test_a_table_of_numbers_may_be_an_array() -> None:
    model = Model(fitted(PRICE, (Number("x0", gaps=False), Number("x1", gaps=False))))
    table = np.random.default_rng(0).normal(size=(20_000, 2))
    assert model.predict(table)[-1] == model.predict(dict(zip(("x0", "x1"), table[-1], strict=True)))


def test_a_notebook_shows_a_model_as_html() -> None:
    """Names are text in it, whatever they hold, and a score that is not defined is a dash."""
    from html.parser import HTMLParser

    class Cells(HTMLParser):
        texts: list[str] = []  # noqa: RUF012
        opened: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.opened.append(tag)

        def handle_data(self, data: str) -> None:
            self.texts.append(data)

    cells = Cells()
    cells.feed(Model(fitted(Target("<b>", "level", ("<i>", "&amp;"))))._repr_html_())
    assert {"div", "strong", "table", "tr", "th", "td"} == set(cells.opened)
    assert ["karp model", "predicts", "<b>: 2 classes (<i>, &amp;)", "columns"] == cells.texts[:4]
    assert ["validation", "accuracy*", "karp", "0.7500", "linear model", "–"] == cells.texts[-6:]
