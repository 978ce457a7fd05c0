"""The model file: the same bytes for the same model, and nothing but a model file opens."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import PRICE, SPECIES, TABLE, fitted
from safetensors.numpy import save

from karp.errors import DataError
from karp.tabular import model_file
from karp.tabular.model import Model, load


@pytest.mark.parametrize("target", [SPECIES, PRICE], ids=["classes", "numbers"])
def test_a_model_is_what_its_file_says(tmp_path: Path, target: Any) -> None:
    model = fitted(target)
    digest = model_file.write(tmp_path / "m", model)
    again = model_file.read(tmp_path / "m")
    assert digest == model_file.write(tmp_path / "again", again)
    assert (tmp_path / "m").read_bytes() == (tmp_path / "again").read_bytes()
    assert model.to_dict() == again.to_dict()
    assert math.isnan(again.results["validation"]["linear"][model.score])
    assert {name: array.tobytes() for name, array in model.weights.items()} == {
        name: array.tobytes() for name, array in again.weights.items()
    }


def test_strides_do_not_show(tmp_path: Path) -> None:
    model = fitted()
    turned = {name: np.asfortranarray(array) for name, array in model.weights.items()}
    model_file.write(tmp_path / "m", model)
    expected = (tmp_path / "m").read_bytes()
    model.weights.update(turned)
    assert expected == model_file.to_bytes(model)


def test_no_file_is_left_where_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        model_file.write(tmp_path / "nowhere" / "m", fitted())
    assert [] == list(tmp_path.iterdir())


@given(data=st.data())
def test_a_damaged_file_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    content = bytearray(model_file.to_bytes(fitted()))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        found = model_file.read(path)
    except DataError:
        return
    assert model_file.to_bytes(fitted()) == model_file.to_bytes(found)  # the bit has no meaning, as in a blank


def plain_of(model: model_file.Fitted) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(model.to_dict()))
    return plain


WRONG = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(st.data())
def test_plain_data_of_another_form_are_a_data_error(data: st.DataObject) -> None:
    model = fitted()
    plain = plain_of(model)
    place: Any = plain
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(WRONG)
        break
    try:
        found = model_file.Fitted.from_dict(plain, model.weights)
        Model(found)
    except DataError:
        return
    assert plain_of(found).keys() == plain.keys()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged, or no model file"),
        (b"PK\x03\x04" + b"x" * 100, "damaged, or no model file"),
        (save({"w": np.zeros(2)}), "is none: `karp fit` writes such files"),
        (save({"w": np.zeros(2)}, metadata={"format": "karp"}), "is none"),
        (save({"w": np.zeros(2)}, metadata={"karp": "[" * 10_000}), "is none"),
        (save({"w": np.zeros(2)}, metadata={"karp": '{"format": 2}'}), "has the format 2, and this karp, .*, reads"),
        (save({"w": np.zeros(2)}, metadata={"karp": '{"format": 1, "model": 7}'}), "its content does not match"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(DataError, match=said):
        model_file.read(tmp_path / "m")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            load(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    model = fitted()
    model.weights.pop(sorted(model.weights)[0])
    model_file.write(tmp_path / "m", model)
    with pytest.raises(DataError, match="the weights are not those of the model's network"):
        load(tmp_path / "m")


STORED = Path(__file__).parent / "stored"
CODES: dict[str, list[Any]] = {"code": ["k00", "k39", "k07", "?", "new"]}


@pytest.mark.filterwarnings("ignore:.*of a level that training had not")
def test_files_of_format_1_open_for_ever_and_predict_what_they_did() -> None:
    """They are as karp wrote them when it had its first format, and are never written again."""
    classes, numbers = load(STORED / "classes-1.safetensors"), load(STORED / "numbers-1.safetensors")
    assert (SPECIES, PRICE) == (classes.fitted.target, numbers.fitted.target)
    probabilities = [
        [0.3193208873271942, 0.601034939289093, 0.07964417338371277],
        [0.4222670793533325, 0.1557305008172989, 0.42200249433517456],
        [0.4270871579647064, 0.41165611147880554, 0.16125668585300446],
        [0.3916317820549011, 0.5183548927307129, 0.09001334756612778],
        [0.27693796157836914, 0.5353845357894897, 0.18767748773097992],
    ]
    prices = [74.74202394485474, 80.12430191040039, 27.169084548950195, 83.68920683860779, 66.70444965362549]
    np.testing.assert_allclose(probabilities, classes.predict_proba(TABLE | CODES), rtol=1e-4)
    np.testing.assert_allclose(prices, numbers.predict(TABLE | CODES), rtol=1e-4)
