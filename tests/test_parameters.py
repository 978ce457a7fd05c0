"""One data vector, one gradient vector, named views: where they lie, what is hashed, what is refused."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from karp import optim
from karp.autograd import Value, linear, relu
from karp.errors import DataError, GraphError, SettingError, ShapeError
from karp.parameters import Layout, Parameters, weights_file

names = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__")  # which no file can hold
shapes = st.dictionaries(names, st.lists(st.integers(0, 5), max_size=3).map(tuple), max_size=6)
dtypes = st.sampled_from(["float32", "float64"])


def two_layers(dtype: str = "float32") -> dict[str, Any]:
    return {
        "weight": Value(np.arange(6, dtype=dtype).reshape(2, 3)),
        "bias": Value(np.array([7, 8, 9], dtype)),
    }


# --- layout ---------------------------------------------------------------------------------------------


@given(shapes, dtypes)
def test_views_are_aligned_c_ordered_and_apart(shapes, dtype):
    layout = Layout(shapes, dtype)
    vector = layout.zeros()
    views = layout.views(vector)
    assert list(shapes.items()) == [(name, view.shape) for name, view in views.items()]
    for view in views.values():
        assert view.flags.c_contiguous
        assert view.size == 0 or view.ctypes.data % 64 == 0
        view += 1
    assert sum(view.size for view in views.values()) == vector.sum()
    assert layout.nbytes % 64 == 0
    assert layout.nbytes == vector.nbytes
    assert vector.size == 0 or vector.ctypes.data % 64 == 0


@given(shapes, dtypes)
def test_hash_is_that_of_the_tensors_one_after_the_other(shapes, dtype):
    layout = Layout(shapes, dtype)
    vector = np.arange(layout.size, dtype=dtype) + 1  # gaps hold something, too
    plain = b"".join(view.tobytes() for view in layout.views(vector).values())
    assert hashlib.sha256(plain).hexdigest() == layout.sha256(vector)


@given(shapes, dtypes)
def test_layout_survives_plain_types(shapes, dtype):
    layout = Layout(shapes, dtype)
    again = Layout.from_dict(layout.to_dict())
    assert layout == again
    assert hash(layout) == hash(again)
    assert layout.offsets == again.offsets


def test_equality_is_by_content_and_order():
    layout = Layout({"a": (2,), "b": (2,)}, "float32")
    assert layout == Layout({"a": (2,), "b": (2,)}, np.float32)
    assert layout != Layout({"b": (2,), "a": (2,)}, "float32")
    assert layout != Layout({"a": (2,), "b": (2,)}, "float64")
    assert "Layout({'a': (2,), 'b': (2,)}, 'float32')" == repr(layout)


GOOD = {"dtype": "float32", "size": 16, "shapes": [["w", [2, 3]]]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dtype": "float16"}, "dtype must be 'float32' or 'float64', not 'float16'"),
        ({"dtype": "((,f4"}, "dtype must be"),
        ({"dtype": ["float32"]}, "dtype must be"),
        ({"size": 15}, "size must be 16 for these shapes, not 15"),
        ({"size": 16.0}, "size must be 16"),
        ({"size": True}, "size must be 16"),
        ({"shapes": {"w": [2, 3]}}, "shapes must be a list"),
        ({"shapes": [["w"]]}, r"\[name, shape\], not \['w'\]"),
        ({"shapes": [[3, [2]]]}, "a name is a string of 1 to 256 characters, not 3"),
        ({"shapes": [["", [2]]]}, "a name is a string"),
        ({"shapes": [["n" * 257, [2]]]}, "a name is a string"),
        ({"shapes": [["w", [2]], ["w", [2]]]}, "'w' appears twice"),
        ({"shapes": [["w", [-1]]]}, r"shape of 'w' must be whole numbers from 0, not \[-1\]"),
        ({"shapes": [["w", [2.0]]]}, "whole numbers"),
        ({"shapes": [["w", [True]]]}, "whole numbers"),
        ({"shapes": [["w", "23"]]}, "whole numbers"),
        ({"shapes": [["w", [1] * 33]]}, "whole numbers"),
        ({"shapes": [["w", [1 << 40]]]}, "whole numbers"),
        ({"shapes": [["w", [1 << 20, 1 << 20]]]}, "more than 17179869184 bytes: 'w'"),
        ({"extra": 1}, "a dict of dtype, size and shapes"),
    ],
)
def test_from_dict_refuses(change, says):
    with pytest.raises(SettingError, match=says):
        Layout.from_dict(GOOD | change)


@pytest.mark.parametrize("plain", [None, [], {"dtype": "float32"}, "float32"])
def test_from_dict_refuses_what_is_no_layout(plain):
    with pytest.raises(SettingError, match="a layout is a dict of dtype, size and shapes"):
        Layout.from_dict(plain)


def test_a_vector_of_another_size_or_dtype_is_refused():
    layout = Layout({"w": (2, 3)}, "float32")
    with pytest.raises(ShapeError, match=r"shape \(16,\), not \(6,\)"):
        layout.views(np.zeros(6, np.float32))
    with pytest.raises(ShapeError, match="contiguous"):
        layout.views(np.zeros(32, np.float32)[::2])
    with pytest.raises(SettingError, match="is float32, not float64"):
        layout.sha256(np.zeros(16))
    with pytest.raises(SettingError, match="must be float32 or float64, not 'foo'"):
        Layout({"w": (2, 3)}, "foo")


def test_a_vector_that_does_not_fit_is_not_bound():
    parameters = Parameters({"w": Value(np.ones(3))})
    with pytest.raises(ShapeError):
        parameters.keep_weights_in(np.zeros(5))
    parameters.data[:3] = 7
    assert [7, 7, 7] == parameters.values[0].data.tolist()


# --- parameters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_move_into_the_vector(dtype):
    values = two_layers(dtype)
    before = {name: value.data for name, value in values.items()}
    parameters = Parameters(values)
    assert ("weight", "bias") == parameters.names
    assert dtype == parameters.data.dtype
    for name, value in values.items():
        assert np.array_equal(before[name], value.data)
        assert np.shares_memory(value.data, parameters.data)
        assert np.shares_memory(value.grad_buffer, parameters.grad)
        assert value.grad is None
    parameters.data += 1
    assert [[1, 2, 3], [4, 5, 6]] == values["weight"].data.tolist()
    assert "Parameters(2 values, 9 numbers, " + dtype + ")" == repr(parameters)


def test_weights_in_fortran_order_become_c_ordered():
    value = Value(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    Parameters({"w": value})
    assert value.data.flags.c_contiguous
    assert np.arange(6.0).reshape(2, 3).tolist() == value.data.tolist()


def test_a_number_becomes_a_view_without_axes():
    value = Value(2.5)
    parameters = Parameters({"scale": value})
    parameters.data *= 2
    assert () == value.data.shape
    assert 5.0 == float(value.data)


def test_gradient_is_complete():
    values = two_layers()
    parameters = Parameters(values)
    weight, bias = values.values()
    weight.grad_buffer[...], bias.grad_buffer[...] = 3, 4
    weight.grad = weight.grad_buffer  # as backward leaves it
    gradient = parameters.grad
    assert [3] * 6 + [0] * 26 == gradient.tolist()  # the bias was not reached

    bias.grad = np.full(3, 5, np.float32)  # the program's own array
    assert gradient is parameters.grad
    assert [5, 5, 5] == bias.grad_buffer.tolist()
    assert bias.grad is bias.grad_buffer

    parameters.zero_grad()
    assert [None, None] == [weight.grad, bias.grad]
    assert not parameters.grad.any()


def test_a_gradient_of_another_shape_is_refused():
    values = two_layers()
    parameters = Parameters(values)
    values["bias"].grad = np.ones(1)
    with pytest.raises(ShapeError, match=r"the gradient of 'bias' has shape \(1,\), not \(3,\)"):
        _ = parameters.grad


def test_tied_weights_have_one_place():
    shared = Value(np.ones((2, 2), np.float32))
    parameters = Parameters({"inward": shared, "outward": shared})
    assert ("inward",) == parameters.names
    assert (shared,) == parameters.values
    with pytest.raises(SettingError, match="'outward' is tied to 'inward'"):
        parameters.load({"inward": np.ones((2, 2)), "outward": np.ones((2, 2))})


def test_dtypes_must_be_equal():
    values = {"a": Value(np.ones(2, np.float32)), "b": Value(np.ones(3))}
    with pytest.raises(SettingError, match="one dtype: 'a' is float32, 'b' is float64"):
        Parameters(values)
    assert values["a"].grad_buffer is None  # nothing was bound


def test_only_floats_and_at_least_one():
    half = Value(np.ones(2))
    half.data = np.ones(2, np.float16)
    with pytest.raises(SettingError, match="float32 or float64, not float16"):
        Parameters({"a": half})
    with pytest.raises(SettingError, match="'a' is no leaf but the result of multiply"):
        Parameters({"a": Value(np.ones(2)) * 2})
    with pytest.raises(SettingError, match="without a single value"):
        Parameters({})


def test_a_replaced_array_is_noticed():
    values = two_layers()
    parameters = Parameters(values)
    assert parameters.is_current()
    values["bias"].data = values["bias"].data.copy()
    assert not parameters.is_current()


def test_load_and_hash():
    one, other = Parameters(two_layers()), Parameters(two_layers())
    assert one.sha256() == other.sha256()
    other.load({"bias": np.zeros(3), "weight": [[1, 2, 3], [4, 5, 6]]})
    assert [[1, 2, 3], [4, 5, 6]] == other.values[0].data.tolist()
    assert one.sha256() != other.sha256()
    one.load({name: value.data for name, value in zip(other.names, other.values, strict=True)})
    assert one.sha256() == other.sha256()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"scale": np.ones(3)}, SettingError, r"missing=\[\], unexpected=\['scale'\]"),
        ({"bias": None}, SettingError, r"missing=\['bias'\], unexpected=\[\]"),
        ({"bias": np.ones((3, 1))}, ShapeError, r"'bias' has shape \(3,\), not \(3, 1\)"),
        ({"bias": np.array(["1", "2", "3"])}, SettingError, "'bias' must hold real numbers, not <U1"),
        ({"bias": np.ones(3, complex)}, SettingError, "real numbers, not complex128"),
        ({"bias": np.ones(3, bool)}, SettingError, "real numbers, not bool"),
        ({"bias": np.array([1, None, 2])}, SettingError, "real numbers, not object"),
        ({"bias": [[1.0], [2.0, 3.0]]}, ShapeError, "'bias': no array can be made of this"),
        ({"bias": [1.0, np.nan, np.inf]}, SettingError, "'bias' holds nan: 2 of 3 numbers are not finite"),
        ({"bias": [1.0, 2.0, -np.inf]}, SettingError, "'bias' holds -inf: 1 of 3"),
        ({"bias": [1.0, 1e39, 0]}, SettingError, r"'bias' holds 1e\+39, which is beyond float32: 1 of 3"),
        ({"bias": [1, 2**24 + 1, 0]}, SettingError, "whole numbers beyond 16,777,216, which float32 rounds"),
        ({"bias": np.array([0, 1, -(2**63)])}, SettingError, "whole numbers beyond"),
        ({"bias": np.array([0, 1, 2**64 - 1], np.uint64)}, SettingError, "whole numbers beyond"),
    ],
)
def test_a_load_that_does_not_fit_changes_nothing(change, error, says):
    parameters = Parameters(two_layers())
    before = parameters.data.copy()
    given = {"weight": np.zeros((2, 3)), "bias": np.zeros(3)} | change
    given = {name: array for name, array in given.items() if array is not None}
    with pytest.raises(error, match=says):
        parameters.load(given)
    assert before.tobytes() == parameters.data.tobytes()


def test_load_takes_what_holds_the_same_numbers() -> None:
    expected = [[0.5, -1.0, 2.0], [3.0, 0.25, 2.0**24]]
    weight = np.array(expected)
    kinds: list[Any] = [
        expected, weight, weight.astype(np.longdouble), weight.astype(">f4"), np.asfortranarray(weight),
        np.repeat(weight, 2, axis=1)[:, ::2], Value(weight),
    ]  # fmt: skip
    for kind in kinds:
        parameters = Parameters(two_layers())
        parameters.load({"weight": kind, "bias": np.array([7, 8, 9], np.uint8)})
        assert (expected, [7, 8, 9]) == (parameters["weight"].data.tolist(), parameters["bias"].data.tolist())
        assert parameters["weight"].data.flags.c_contiguous


def test_a_file_says_which_layout_its_matrices_have(tmp_path: Path) -> None:
    parameters = Parameters({"weight": Value(np.zeros((2, 2), np.float32))})
    arrays = {"weight": np.array([[1, 2], [3, 4]], np.float32)}
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights_file.write({"weight": np.asfortranarray(arrays["weight"])}, weights_file.KARP))
    parameters.load(path)
    assert [[1, 2], [3, 4]] == parameters["weight"].data.tolist()
    refused = {
        weights_file.write(arrays, weights_file.TORCH): "have torch's layout, .outputs, inputs.",
        save(arrays): "do not name their layout, and 'weight' is square",
    }
    for content, said in refused.items():
        path.write_bytes(content)
        with pytest.raises(SettingError, match=said):
            parameters.load(str(path))
    parameters.load({"weight": arrays["weight"].T})  # who reads the file says what it is
    assert [[1, 3], [2, 4]] == parameters["weight"].data.tolist()


def test_a_file_without_a_layout_loads_where_it_fits_one_way_alone(tmp_path: Path) -> None:
    parameters = Parameters(two_layers())
    (tmp_path / "w").write_bytes(save({"weight": np.ones((2, 3)), "bias": np.zeros(3)}))
    parameters.load(tmp_path / "w")
    (tmp_path / "w").write_bytes(save({"weight": np.ones((3, 2)), "bias": np.zeros(3)}))
    with pytest.raises(ShapeError, match=r"\(2, 3\), not \(3, 2\): it is to be transposed, as torch has"):
        parameters.load(tmp_path / "w")
    for path, said in ((tmp_path / "none", "cannot be read: No such file"), (Path(__file__), "are damaged, or no")):
        with pytest.raises(DataError, match=said):
            parameters.load(path)


def test_load_takes_bfloat16_as_jax_and_safetensors_give_it() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    parameters = Parameters(two_layers())
    parameters.load({"weight": np.full((2, 3), 1.5, bfloat16), "bias": np.full(3, 1.5, np.float16)})
    assert {1.5} == set(parameters["weight"].data.ravel()) | set(parameters["bias"].data)
    with pytest.raises(SettingError, match="'bias' holds inf: 1 of 3"):
        parameters.load({"weight": np.zeros((2, 3)), "bias": np.array([0, np.inf, 1], bfloat16)})


def test_parameters_load_from_others_and_from_each_other() -> None:
    one = Parameters({"a": Value(np.zeros(2)), "b": Value(np.ones(2))})
    other = Parameters({"a": Value(np.full(2, 2.0)), "b": Value(np.full(2, 3.0))})
    one.load(other)
    assert one.sha256() == other.sha256()
    one.load({"a": one["b"], "b": one["a"]})
    assert ([3, 3], [2, 2]) == (one["a"].data.tolist(), one["b"].data.tolist())


def test_a_load_of_no_names_and_into_weights_that_cannot_be_written_is_refused() -> None:
    parameters = Parameters(two_layers())
    good = {"weight": np.zeros((2, 3)), "bias": np.zeros(3)}
    for wrong in ([1.0], None, list(good.items())):
        with pytest.raises(SettingError, match="load takes a dict of names and arrays, or a path, not"):
            parameters.load(wrong)  # type: ignore[arg-type]
    parameters.keep_weights_in(parameters.data.view())
    parameters.data.flags.writeable = False
    with pytest.raises(SettingError, match="the weights are read-only: load them before or after the loop"):
        parameters.load(good)


def test_parameters_read_like_a_dict() -> None:
    values = two_layers()
    parameters = Parameters(values)
    assert (2, ["weight", "bias"]) == (len(parameters), list(parameters))
    assert "bias" in parameters
    assert "scale" not in parameters
    assert parameters["bias"] is values["bias"]
    assert ["weight", "bias"] == [name for name, value in parameters.items() if value is values[name]]
    assert {name: id(value) for name, value in values.items()} == {
        name: id(value) for name, value in dict(parameters).items()
    }
    with pytest.raises(KeyError, match="no parameter 'scale'; there are"):
        _ = parameters["scale"]


def test_a_name_that_no_file_can_hold_is_refused() -> None:
    for name in ("__metadata__", "a\udc80", "n" * 257):
        with pytest.raises(SettingError, match="a name"):
            Layout({name: (2,)})


# --- with the engine ------------------------------------------------------------------------------------


def loss_of(values: dict[str, Any]) -> Any:
    rows = np.array([[1.0, -2.0], [3.0, 4.0], [-5.0, 6.0]], np.float32)
    return relu(linear(rows, values["weight"], values["bias"])).sum()


def test_backward_writes_into_the_vector():
    values, plain = two_layers(), two_layers()
    parameters = Parameters(values)
    for _ in range(2):
        parameters.zero_grad()
        loss_of(values).backward()
        assert all(value.grad is value.grad_buffer for value in parameters.values)
    loss_of(plain).backward()
    views = parameters.layout.views(parameters.grad)
    assert {name: value.grad.tolist() for name, value in plain.items()} == {
        name: view.tolist() for name, view in views.items()
    }
    before = parameters.grad.copy()
    loss_of(values).backward()  # without zero_grad gradients add up
    assert (2 * before).tolist() == parameters.grad.tolist()


def test_a_graph_from_before_an_update_cannot_go_backward():
    values = two_layers()
    parameters = Parameters(values)
    updater = optim.Updater(optim.SGD(lr=0.5), parameters)

    def squares() -> Any:
        return (values["weight"] * values["weight"]).sum()

    squares().backward()
    old = squares()
    expected = parameters.data - parameters.grad * np.float32(0.5)
    updater.update(parameters.grad)
    assert expected.tobytes() == parameters.data.tobytes()
    with pytest.raises(GraphError, match="written to between forward and backward"):
        old.backward()
    squares().backward()

    old = squares()
    parameters.load(dict(zip(parameters.names, (value.data + 1 for value in parameters.values), strict=True)))
    with pytest.raises(GraphError):
        old.backward()

    old = squares()
    before = parameters.data.copy()
    with pytest.raises(ShapeError):
        updater.update(np.ones(1, np.float32))
    old.backward()  # a refused update leaves graphs as they were
    assert before.tobytes() == parameters.data.tobytes()


def test_weights_can_be_read_where_another_process_keeps_them() -> None:
    weight = Value(np.ones((2, 3), np.float32))
    parameters = Parameters({"weight": weight})
    stale = (weight * weight).sum()
    elsewhere = parameters.layout.zeros() + np.float32(2)
    elsewhere.flags.writeable = False
    parameters.keep_weights_in(elsewhere)
    assert parameters.data is elsewhere
    assert parameters.is_current()
    assert 6 * [2.0] == weight.data.ravel().tolist()
    with pytest.raises(ValueError, match="read-only"):
        weight.data[0, 0] = 1
    with pytest.raises(GraphError):
        stale.backward()
    (weight * weight).sum().backward()
    assert 6 * [4.0] == weight.grad.ravel().tolist()


def test_bindings_are_made_once_for_vectors_that_are_used_by_turns() -> None:
    weight = Value(np.ones((2, 3), np.float32))
    parameters = Parameters({"weight": weight})
    copies = [parameters.layout.zeros() for _ in range(2)]
    parameters.prepare_bindings(copies)
    seen = []
    for turn in range(4):
        copies[turn % 2][:] = turn
        parameters.keep_weights_in(copies[turn % 2])
        assert copies[turn % 2] is parameters.data
        assert float(turn) == weight.data[1, 2]
        assert parameters.is_current()
        seen.append(weight.data)
    assert seen[0] is seen[2]
    assert seen[1] is seen[3]
    parameters.prepare_bindings([])
    parameters.keep_weights_in(copies[0])
    assert seen[0] is not weight.data
