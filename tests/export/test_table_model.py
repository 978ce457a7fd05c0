"""Models of tables: where karp cannot be imported, raw columns give the labels and probabilities that karp gives."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import for_karp, raw, session
from hypothesis import given, settings
from hypothesis import strategies as st
from models import COLUMNS, PRICE, SPECIES, fitted
from running import ROOT

from karp import cli
from karp.export import onnx
from karp.export.columns import is_truth, spellings
from karp.tabular import model_file
from karp.tabular.columns.column_types import Category, Clock, ColumnType, Date, Number, Schema
from karp.tabular.columns.target import Target
from karp.tabular.fit import fit
from karp.tabular.model import Model
from karp.tabular.network.recipe import ACTIVATIONS

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*of a level that training had not", "ignore:.*of another kind than the column"
)

MANY = tuple(f"k{number:02}" for number in range(40))
ALL: tuple[ColumnType, ...] = (
    *COLUMNS,
    Category("code", gaps=True, levels=MANY, rare=False),
    Category("other code", gaps=False, levels=MANY, rare=True),
    Category("member", gaps=False, levels=("false", "true"), rare=False),
    Category("perhaps", gaps=True, levels=("false", "true"), rare=False),
    Date("seen", gaps=True, parts=("month", "day", "weekday", "hour")),
    Number("label", gaps=False),
)
NUMBERS: tuple[ColumnType, ...] = (Number("a", gaps=False), Number("b", gaps=True), Clock("c", gaps=True))
CATEGORIES = tuple(column for column in ALL if isinstance(column, Category))
GATHERED = tuple(column for column in CATEGORIES if column.levels == MANY)

MODELS: dict[str, Any] = {
    "all": (SPECIES, ALL, {}),
    "numbers": (SPECIES, NUMBERS, {}),
    "categories": (SPECIES, CATEGORIES, {}),
    "gathered": (SPECIES, GATHERED, {"members": 2}),
    "members": (SPECIES, ALL, {"members": 3}),
    "linear": (SPECIES, ALL, {"layers": ()}),
    "no bins": (SPECIES, ALL, {"bins": 0}),
    "value": (PRICE, ALL, {}),
    "value members": (PRICE, ALL, {"members": 4}),
    "integers": (Target("n", "level", ("0", "1", "5")), NUMBERS, {}),
    "floats": (Target("n", "level", ("0.5", "1")), NUMBERS, {}),
    "truth": (Target("n", "level", ("false", "true")), NUMBERS, {}),
    **{name: (SPECIES, ALL, {"activation": name}) for name in ACTIVATIONS},
}


def made(name: str) -> Model:
    target, columns, recipe = MODELS[name]
    return Model(fitted(target, columns, **recipe))


def cells(column: ColumnType, edges: list[float]) -> st.SearchStrategy[Any]:
    """Cells of a column: among others missing, unknown and infinite ones, bin edges, and numbers as texts."""
    if isinstance(column, Category):
        if is_truth(column):
            return st.booleans()
        return st.sampled_from([*spellings(column), "somewhere", "x y", "é"])
    if isinstance(column, Date):
        return st.none() | st.integers(-(2**36), 2**36) | st.integers(-30_000, 30_000).map(lambda day: day * 86_400)
    if isinstance(column, Clock):
        return st.none() | st.integers(0, 86_399).map(float)
    special = st.sampled_from([None, -0.0, 0.0, 1e30, -1e30, 1e308, 5e-324, float("inf"), float("nan"), *edges])
    return special | st.floats(-3, 3) | st.integers(-5, 5).map(float)


def table(model: Model, rows: int) -> st.SearchStrategy[dict[str, list[Any]]]:
    learnt, schema = model.fitted.preprocessing, model.fitted.schema
    edges = {
        name: (median + scale * values.astype(np.float64)).tolist()
        for name, median, scale, values in zip(
            learnt.names, learnt.medians, learnt.scales, learnt.edges, strict=True)
    }  # fmt: skip
    return st.fixed_dictionaries({
        column.name: st.lists(cells(column, edges.get(column.name, [])), min_size=rows, max_size=rows)
        for column in schema.used
    })


def check(model: Model, columns: dict[str, list[Any]], outputs: dict[str, np.ndarray[Any, Any]]) -> None:
    """The outputs of an exported model are what karp predicts."""
    given = for_karp(model.fitted.schema, columns)
    if model.fitted.target.classes:
        probabilities, label = outputs["probabilities"], outputs["label"]
        expected = model.predict_proba(given)
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        near = np.sort(expected)[:, -1] - np.sort(expected)[:, -2] < 1e-5  # either class may be named
        assert (model.predict(given)[~near] == label[~near]).all()
        kind = "O" if model.classes.dtype.kind == "U" else model.classes.dtype
        assert (np.float32, kind) == (probabilities.dtype, label.dtype)
    else:
        np.testing.assert_allclose(outputs["value"], model.predict(given), rtol=1e-5, atol=1e-4)


def run(session: Any, feed: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    names = [output.name.rstrip("_") for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


ELSEWHERE = """
import json, sys
import numpy as np
import onnxruntime
sys.modules["karp"] = None  # so that it cannot be imported
kinds = {"tensor(string)": object, "tensor(double)": float, "tensor(int64)": "int64", "tensor(bool)": bool}
with open("tables.json") as file:
    tables = json.load(file)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
results = []
for name, table in tables:
    session = onnxruntime.InferenceSession(name + ".onnx", options)
    feed = {given.name: np.array(table[given.name], kinds[given.type]) for given in session.get_inputs()}
    results.append([output.tolist() for output in session.run(None, feed)])
with open("results.json", "w") as file:
    json.dump(results, file)
assert not [name for name in sys.modules if name.startswith("karp.")]
"""


def random_table(model: Model, rows: int, seed: int) -> dict[str, list[Any]]:
    """Rows drawn without Hypothesis, as a file has them."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[Any]] = {}
    learnt = dict(zip(model.fitted.preprocessing.names, model.fitted.preprocessing.edges, strict=True))
    for column in model.fitted.schema.used:
        if isinstance(column, Category):
            texts = [True, False] if is_truth(column) else [*column.levels, "", "nan", "None", "new", "1.0", "02"]
            drawn[column.name] = [texts[place] for place in rng.integers(0, len(texts), rows)]
        elif isinstance(column, Date):
            drawn[column.name] = [None if day < 10 else day * 40_000 for day in rng.integers(0, 60_000, rows).tolist()]
        elif isinstance(column, Clock):
            drawn[column.name] = [None if hour > 23 else hour * 3600.0 for hour in rng.integers(0, 25, rows).tolist()]
        else:
            special = [None, -0.0, 1e30, -1e30, *learnt[column.name].tolist()]
            numbers = rng.normal(size=rows).tolist()
            at = rng.integers(0, 3 * len(special), rows).tolist()
            drawn[column.name] = [special[a] if a < len(special) else x for a, x in zip(at, numbers, strict=True)]
    return drawn


def test_raw_columns_where_there_is_no_karp(tmp_path: Path) -> None:
    models = {name: made(name) for name in MODELS}
    tables = []
    for name, model in models.items():
        onnx(model, tmp_path / f"{name}.onnx")
        tables += [(name, random_table(model, rows, rows)) for rows in (40, 1, 0)]
    feeds = [(name, raw(models[name].fitted.schema, columns)) for name, columns in tables]
    plain = [(name, {column: values.tolist() for column, values in feed.items()}) for name, feed in feeds]
    (tmp_path / "tables.json").write_text(json.dumps(plain))
    done = subprocess.run([sys.executable, "-I", "-c", ELSEWHERE], cwd=tmp_path, capture_output=True, text=True)
    assert 0 == done.returncode, done.stderr
    for (name, columns), found in zip(tables, json.loads((tmp_path / "results.json").read_text()), strict=True):
        classes = models[name].classes
        width = len(classes)
        text = classes.dtype.kind == "U"
        outputs = {
            "label": np.array(found[0], object if text else None if found[0] else classes.dtype),
            "probabilities": np.array(found[-1], np.float32).reshape(-1, width),
        } if width else {"value": np.array(found[0])}  # fmt: skip
        check(models[name], columns, outputs)


@pytest.mark.parametrize("name", ["all", "categories", "value members"])
def test_any_rows_are_predicted_as_by_karp(tmp_path: Path, name: str) -> None:
    model = made(name)
    onnx(model, tmp_path / "m.onnx")
    runtime = session(tmp_path / "m.onnx")

    @settings(max_examples=60)
    @given(st.integers(0, 6).flatmap(lambda rows: table(model, rows)))
    def law(columns: dict[str, list[Any]]) -> None:
        check(model, columns, run(runtime, raw(model.fitted.schema, columns)))

    law()


@given(st.lists(st.sampled_from(Schema(ALL).used), unique=True, min_size=1, max_size=4), st.data())
@settings(max_examples=25)
def test_models_of_any_columns(tmp_path_factory: pytest.TempPathFactory, columns: Any, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    model = Model(fitted(SPECIES, tuple(columns), members=data.draw(st.sampled_from([1, 2])), layers=(4,)))
    onnx(model, path)
    rows = data.draw(table(model, 5))
    check(model, rows, run(session(path), raw(model.fitted.schema, rows)))


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    """Also that of a tensor inside of the graph, or of an output."""
    names = ("Constant.0", "MatMul.3", "Gather.5_", "label", "probabilities", "a b", "é\n", "0", "/x:0", "sin(x)")
    columns: list[ColumnType] = [Number(name, gaps=False) for name in names[:5]]
    columns += [Category(name, gaps=False, levels=("a", "b"), rare=False) for name in names[5:]]
    model = Model(fitted(SPECIES, tuple(columns)))
    onnx(model, tmp_path / "m.onnx")
    table = {name: [0.5, -1.0] if place < 5 else ["a", "b"] for place, name in enumerate(names)}
    check(model, table, run(session(tmp_path / "m.onnx"), raw(model.fitted.schema, table)))


def test_a_frame_of_a_fitted_model_is_fed_as_it_is(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.read_csv(ROOT / "workers" / "penguins.csv")
    model = fit(frame, target="species", n_jobs=1, epochs=3, show=False)
    onnx(model, tmp_path / "m.onnx")
    runtime = session(tmp_path / "m.onnx")
    kinds = {"tensor(string)": object, "tensor(double)": float}
    feed = {given.name: frame[given.name].to_numpy(kinds[given.type]) for given in runtime.get_inputs()}
    label, probabilities = runtime.run(None, feed)
    assert model.predict(frame).tolist() == label.tolist()
    np.testing.assert_allclose(probabilities, model.predict_proba(frame), atol=1e-5)


def test_inputs_and_outputs_say_what_they_are(tmp_path: Path) -> None:
    onnx(made("all"), tmp_path / "m.onnx")
    runtime = session(tmp_path / "m.onnx")
    types = {given.name: (given.type, given.shape) for given in runtime.get_inputs()}
    kinds = {"string": 5, "double": 3, "int64": 2, "bool": 1}
    assert kinds == {kind: [f"tensor({kind})", ["rows"]] and sum(kind in given for given, _ in types.values())
                     for kind in kinds}  # fmt: skip
    assert ["label_", "probabilities"] == [output.name for output in runtime.get_outputs()]  # a column is named label
    import onnx as package

    graph = package.load(str(tmp_path / "m.onnx")).graph
    notes = {item.name: item.doc_string for item in (*graph.input, *graph.output)}
    assert "a date in Unix seconds, UTC; -9223372036854775808 is missing" == notes["born"]
    assert "a text: 'Bern', 'Wil'; '' is missing" == notes["city"]
    assert "of the classes 'Adelie', 'Gentoo', 'Chin strap'" == notes["probabilities"]


def test_the_command_writes_what_the_function_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = fitted()
    model_file.write(tmp_path / "m.safetensors", model)
    onnx(Model(model), tmp_path / "a.onnx")
    assert 0 == cli.main(["export", str(tmp_path / "m.safetensors"), str(tmp_path / "b.onnx")])
    assert ("", "") == capsys.readouterr()
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_what_cannot_be_exported_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "m.onnx")
    model_file.write(path, fitted())
    before = Path(path).read_bytes()
    for line, said in (
        ([path, path], "it would take the place of the model: name another file"),
        ([path, str(tmp_path / "x.pb")], "name a file that ends with .onnx"),
        ([path, str(tmp_path / "nowhere" / "x.onnx")], "cannot be written: No such file or directory"),
        ([str(tmp_path / "none"), str(tmp_path / "x.onnx")], "cannot be read"),
    ):
        assert 2 == cli.main(["export", *line])
        assert said in capsys.readouterr().err
    assert before == Path(path).read_bytes()


def test_without_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"needs onnx: pip install 'karp\[onnx\]'"):
        onnx(made("numbers"), tmp_path / "m.onnx")


def test_schemas_of_the_tests_have_every_type() -> None:
    assert {Number, Date, Clock, Category} == {type(column) for column in Schema(ALL).used}
