"""Values: what they hold, how they look, NumPy's semantics for numbers, and errors that say what to do."""

import math
from typing import Any

import numpy as np
import pytest

from karp import autograd as ag
from karp.autograd import Value
from karp.errors import GraphError, SettingError, ShapeError


@pytest.mark.parametrize(
    ("given", "dtype", "kind"),
    [
        (2.0, np.float64, float),
        (2, np.float64, float),
        (True, np.float64, float),
        (np.float64(2.0), np.float64, float),
        (np.int32(2), np.float64, float),
        (np.float32(2.0), np.float32, np.ndarray),
        (np.array(2.0), np.float64, np.ndarray),
        ([1, 2], np.float64, np.ndarray),
        (np.array([1, 2], np.int32), np.float64, np.ndarray),
        (np.array([True]), np.float64, np.ndarray),
        (np.ones(2, np.float16), np.float32, np.ndarray),
        (np.ones(2, np.float32), np.float32, np.ndarray),
        (np.ones(2, ">f4"), np.float32, np.ndarray),
        ([np.float32(1.0)], np.float32, np.ndarray),
    ],
)
def test_what_a_value_holds(given: Any, dtype: Any, kind: type) -> None:
    value = Value(given)
    assert kind is type(value.data)
    assert np.dtype(dtype) == value.dtype
    assert value.dtype.isnative
    np.testing.assert_array_equal(np.asarray(given, dtype), value.data)


@pytest.mark.parametrize("given", [1j, "two", np.array(["a"]), np.array([object()]), None, np.ones(2, np.longdouble)])
def test_what_a_value_does_not_hold(given: Any) -> None:
    with pytest.raises(GraphError, match="real numbers"):
        Value(given)


def test_ragged_lists_and_values_in_lists_are_refused() -> None:
    with pytest.raises(ShapeError, match="no array"):
        Value([[1.0], [1.0, 2.0]])
    with pytest.raises(GraphError, match="stack"):
        Value([Value(1.0), Value(2.0)])
    with pytest.raises(GraphError, match="detach"):
        Value(Value(1.0))


def test_arrays_are_kept_not_copied() -> None:
    array = np.ones(3)
    assert Value(array).data is array


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Value(0.9912), "Value(0.9912)"),
        (Value(-4), "Value(-4.0)"),
        (Value(np.array(2.5)), "Value(2.5)"),
        (Value(np.float32(0.1)), "Value(0.1)"),
        (Value([1.0, 2.0]).sum(), "Value(3.0)"),
        (Value([[1.0, 2.0], [3.0, 4.5]]), "Value([[1.  2. ]\n       [3.  4.5]])"),
    ],
)
def test_repr(value: Value, expected: str) -> None:
    assert expected == repr(value)


def test_shape_and_conversions() -> None:
    array = Value(np.arange(6.0).reshape(2, 3))
    assert ((2, 3), 2, 6, 2) == (array.shape, array.ndim, array.size, len(array))
    assert [(3,), (3,)] == [row.shape for row in array]
    assert (3, 2) == array.T.shape
    number = Value(2.5)
    assert ((), 0, 1) == (number.shape, number.ndim, number.size)
    assert [2.5, 2.5, 2.5] == [float(number), number.item(), float(Value([2.5]))]
    assert bool(number)
    assert not bool(Value([0.0]))
    for broken in (lambda: len(number), lambda: float(array), lambda: bool(array), lambda: list(number)):
        with pytest.raises(ShapeError):
            broken()


def test_comparisons_are_plain_booleans() -> None:
    number, array = Value(2.0), Value([1.0, 3.0])
    assert (True, False, True, True) == (number > 1, number < 1, number == 2.0, number != 3)
    for result in (array > 2, array <= number, array == array, number < array, np.ones(2) < array):
        assert bool is type(result) or result.dtype == bool
    assert [False, True] == (array >= number).tolist()
    assert {number, array} == {array, number}


def test_detach_is_a_leaf_with_the_same_data() -> None:
    x = Value([1.0, 2.0])
    y = (x * x).detach()
    assert y.operation is None
    (x * y).sum().backward()
    np.testing.assert_array_equal([1.0, 4.0], x.grad)


# --- NumPy's semantics for Python floats ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "expected", "warning"),
    [
        (lambda: Value(1.0) / 0.0, math.inf, "divide by zero"),
        (lambda: 1 / Value(0.0), math.inf, "divide by zero"),
        (lambda: Value(0.0) / 0.0, math.nan, "invalid"),
        (lambda: Value(0.0) ** -1, math.inf, "divide by zero"),
        (lambda: Value(-8.0) ** (1 / 3), math.nan, "invalid"),
        (lambda: Value(1e300) ** 2, math.inf, "overflow"),
        (lambda: Value(1000.0).exp(), math.inf, "overflow"),
        (lambda: Value(0.0).log(), -math.inf, "divide by zero"),
        (lambda: Value(-1.0).log(), math.nan, "invalid"),
        (lambda: Value(-1.0).sqrt(), math.nan, "invalid"),
        (lambda: ag.sin(Value(math.inf)), math.nan, "invalid"),
        (lambda: ag.log1p(Value(-1.0)), -math.inf, "divide by zero"),
    ],
)
def test_numbers_outside_the_domain_are_what_numpy_says(f: Any, expected: float, warning: str) -> None:
    with pytest.warns(RuntimeWarning, match=warning):
        result = f()
    assert float is type(result.data)
    np.testing.assert_equal(expected, result.data)


def test_numbers_that_do_not_overflow_do_not_warn() -> None:
    values = [
        Value(1e308) * 10,
        Value(1000.0).tanh(),
        Value(-1000.0).sigmoid(),
        ag.softplus(Value(1000.0)),
        Value(math.nan).relu(),
    ]
    np.testing.assert_equal([math.inf, 1.0, 0.0, 1000.0, math.nan], [value.data for value in values])


def test_gradients_outside_the_domain_are_what_numpy_says() -> None:
    x = Value(0.0)
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        (x**0.5).backward()
    assert math.inf == x.grad
    zero = Value(0.0)
    (zero**0).backward()
    assert 0.0 == zero.grad
    negative = Value(-2.0)
    (negative**3).backward()
    assert 12.0 == negative.grad


# --- dtype ----------------------------------------------------------------------------------------------------------


def test_float32_stays_float32() -> None:
    x = Value(np.ones((2, 3), np.float32))
    scale = np.float64(2.0)
    y = (x * scale + 1) / np.sqrt(2.0) - 3 * x**2
    loss = (scale * y).mean() * np.float64(0.5) + ag.mse(y, np.ones((2, 3))) + ag.cross_entropy(y, np.array([0, 1]))
    assert np.float32 == loss.dtype
    loss.backward(0.25, retain_grad=True)
    assert [np.float32] * 3 == [one.grad.dtype for one in (x, y, loss)]


def test_a_float64_constant_promotes_the_result_but_not_the_gradient() -> None:
    x = Value(np.ones(3, np.float32))
    y = x * np.ones(3)
    assert np.float64 == y.dtype
    y.sum().backward()
    assert np.float32 == x.grad.dtype


def test_linear_takes_constant_input_of_any_dtype() -> None:
    weight = Value(np.ones((2, 2), np.float32))
    for x in ([[1, 2]], np.ones((1, 2)), np.ones((1, 2), np.int64), np.ones((1, 2), bool)):
        out = ag.linear(x, weight)
        assert np.float32 == out.dtype
        out.sum().backward()
    assert np.float32 == weight.grad.dtype


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda a, b: a + b, ["add", "(2, 3)", "(4,)"]),
        (lambda a, b: a * b, ["multiply", "(2, 3)", "(4,)"]),
        (lambda a, b: a - b, ["subtract", "(2, 3)", "(4,)"]),
        (lambda a, b: a / b, ["divide", "(2, 3)", "(4,)"]),
        (lambda a, b: a**b, ["power", "(2, 3)", "(4,)"]),
        (lambda a, b: ag.maximum(a, b), ["maximum", "(2, 3)", "(4,)"]),
        (lambda a, b: a @ b, ["matmul", "(2, 3)", "(4,)", "3", "4"]),
        (lambda a, b: b @ a, ["matmul", "(4,)", "(2, 3)"]),
        (lambda a, b: 2.0 @ a, ["matmul", "use *"]),
        (lambda a, b: a.reshape(4, 2), ["reshape", "(2, 3)", "6 elements", "(4, 2)"]),
        (lambda a, b: a.reshape(-1, 4), ["reshape", "(2, 3)"]),
        (lambda a, b: a.sum(axis=2), ["sum", "no axis 2"]),
        (lambda a, b: a.sum(axis=(0, 0)), ["sum", "twice"]),
        (lambda a, b: ag.max(a[:0]), ["max", "empty"]),
        (lambda a, b: ag.mean(a[:0]), ["mean", "empty"]),
        (lambda a, b: ag.var(a, ddof=6), ["var", "ddof=6"]),
        (lambda a, b: ag.softmax(a, 5), ["softmax", "no axis 5"]),
        (lambda a, b: ag.transpose(a, (0, 0)), ["transpose", "twice"]),
        (lambda a, b: ag.transpose(a, (0,)), ["transpose"]),
        (lambda a, b: ag.squeeze(a, 0), ["squeeze", "size 2"]),
        (lambda a, b: ag.broadcast_to(a, (2, 4)), ["broadcast_to"]),
        (lambda a, b: ag.concatenate([a, b]), ["concatenate", "(2, 3)", "(4,)"]),
        (lambda a, b: ag.concatenate([a, a[:, :2]]), ["concatenate", "axis 0", "array 1 has shape (2, 2)"]),
        (lambda a, b: ag.concatenate([a] * 9 + [b]), ["concatenate of 10 arrays of shapes (2, 3) and (4,): "]),
        (lambda a, b: a @ 3.0, ["matmul of shape (2, 3) and a number: "]),
        (lambda a, b: ag.where(b.data > 0, a, 1.0), ["where of shape (4,), shape (2, 3) and a number: "]),
        (lambda a, b: ag.leaky_relu(a, 0.5).sum(axis=3), ["sum of shape (2, 3): "]),
        (lambda a, b: ag.mse(3.0, b), ["mse of a number and shape (4,): "]),
        (lambda a, b: ag.concatenate([]), ["at least"]),
        (lambda a, b: ag.stack([a, b]), ["stack", "one shape"]),
        (lambda a, b: ag.stack([]), ["at least"]),
        (lambda a, b: ag.split(a, 2, 1), ["split", "(2, 3)", "2 equal parts"]),
        (lambda a, b: ag.split(a, 2, 7), ["no axis 7"]),
        (lambda a, b: a[5], ["index", "(2, 3)", "out of bounds"]),
        (lambda a, b: a[0, 0, 0], ["index", "too many"]),
        (lambda a, b: ag.linear(a, b), ["linear", "two axes"]),
        (lambda a, b: ag.linear(np.ones((5, 4)), a), ["linear", "(5, 4)", "(2, 3)", "takes 2"]),
        (lambda a, b: ag.linear(np.ones((5, 2)), a, np.ones(1)), ["linear", "bias", "(3,)"]),
        (lambda a, b: ag.linear(np.ones((5, 2)), a, b), ["linear", "bias", "(3,)", "(4,)"]),
        (lambda a, b: ag.layer_norm(a, b), ["layer_norm", "weight", "(3,)"]),
        (lambda a, b: ag.mse(a, np.ones(3)), ["mse", "same shape", "(2, 3)"]),
        (lambda a, b: ag.mse(a[:0], np.ones((0, 3))), ["mse", "zero samples"]),
        (lambda a, b: ag.cross_entropy(a, np.array([0, 1, 2])), ["cross_entropy", "(2,)", "(3,)"]),
        (lambda a, b: ag.cross_entropy(a, np.array([0.0, 1.0])), ["cross_entropy", "integers"]),
        (lambda a, b: ag.cross_entropy(a, np.ones((2, 2))), ["cross_entropy", "probabilities", "(2, 3)"]),
        (lambda a, b: ag.cross_entropy(a[:0], np.zeros(0, int)), ["cross_entropy", "zero samples"]),
        (lambda a, b: ag.cross_entropy(a, np.array([0, 1]), class_weights=np.ones(2)), ["class_weights", "(3,)"]),
        (lambda a, b: ag.cross_entropy(a, np.array([0, 1]), sample_weights=np.ones(3)), ["sample_weights", "(2,)"]),
        (lambda a, b: (a * 1).backward(), ["backward", "(2, 3)", "gradient="]),
        (lambda a, b: (a * 1).backward(np.ones(3)), ["backward", "(2, 3)", "(3,)"]),
    ],
)
def test_shape_errors_name_the_operation_and_the_shapes(f: Any, words: list[str]) -> None:
    with pytest.raises(ShapeError) as caught:
        f(Value(np.ones((2, 3))), Value(np.ones(4)))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("f", "word"),
    [
        (lambda: ag.cross_entropy(Value(np.ones((2, 3))), np.array([0, 3])), "index 3"),
        (lambda: ag.cross_entropy(Value(np.ones((2, 3))), np.array([-1, 0])), "index -1"),
        (lambda: ag.cross_entropy(Value(np.ones((2, 3))), np.array([0, 1]), label_smoothing=1.5), "label_smoothing"),
        (lambda: ag.cross_entropy(Value(np.ones((2, 3))), np.array([0, 1]), sample_weights=[0.0, 0.0]), "above 0"),
        (lambda: ag.dropout(Value(1.0), 1.0, np.random.default_rng(0)), "p=1.0"),
        (lambda: ag.embedding(Value(np.ones((2, 3))), [0.5]), "integers"),
        (lambda: ag.embedding(Value(np.ones((2, 3))), [1, -1]), "there is no row -1; rows are counted from 0"),
        (lambda: ag.linear(np.ones((1, 2)), Value(np.ones((2, 3))), None, "relU"), "relU"),
    ],
)
def test_setting_errors(f: Any, word: str) -> None:
    with pytest.raises(SettingError, match=word):
        f()


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.__setitem__(0, 1.0),
        lambda x: x + 1j,
        lambda x: x * np.array([1j]),
        lambda x: x + "a",
        lambda x: x * None,
        lambda x: ag.clip(x, x, 2.0),
        lambda x: ag.cross_entropy(x, x),
        lambda x: x[Value(0.0)],
        np.asarray,
        np.array,
        lambda x: np.array([x, x]),
    ],
)
def test_what_the_engine_cannot_do_is_a_graph_error(f: Any) -> None:
    with pytest.raises(GraphError):
        f(Value(np.ones(3)))


def test_writing_into_a_node_says_what_to_do() -> None:
    x = Value(np.ones(3))
    with pytest.raises(GraphError, match="where"):
        x[0] = 2.0


def test_no_attribute_is_made_up() -> None:
    with pytest.raises(AttributeError, match="'weights'"):
        Value(1.0).weights  # noqa: B018
    with pytest.raises(AttributeError):
        Value(1.0).weights = 1  # type: ignore[attr-defined]
