"""Backward: known constants, reuse, order, accumulation, ownership, depth, memory."""

import gc
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from karp import autograd as ag
from karp.autograd import Value
from karp.autograd.operation import undo_broadcast


def test_the_example_of_the_origin() -> None:
    x, y = Value(2.0), Value(-3.0)
    z = x * y + x
    z.backward()
    assert (-4.0, -2.0, 2.0) == (z.data, x.grad, y.grad)


def test_known_constants_of_a_long_expression() -> None:
    a, b = Value(-4.0), Value(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    assert [24.7041, 138.8338, 645.5773] == [round(one, 4) for one in (g.data, a.grad, b.grad)]


def test_known_constants_of_relu_with_reuse() -> None:
    x = Value(-4.0)
    z = 2 * x + 2 + x
    q = z.relu() + z * x
    h = (z * z).relu()
    y = h + q + q * x
    y.backward()
    assert (-20.0, 46.0) == (y.data, x.grad)


@pytest.mark.parametrize("data", [3.0, np.array([1.0, -2.0, 3.0])])
def test_a_value_used_many_times_gets_the_sum(data: Any) -> None:
    x = Value(data)
    (x + x + x * x + x).sum().backward()
    np.testing.assert_array_equal(3 + 2 * np.asarray(data), x.grad)


def test_a_diamond_waits_for_every_use() -> None:
    x = Value(3.0)
    a = x * 2.0
    b = a + 1.0
    c = a * b  # uses a again, after b
    d = c + b + a
    d.backward()
    # d = 2x(2x+1) + (2x+1) + 2x
    assert 8 * 3.0 + 2 + 2 + 2 == x.grad


def test_leaves_accumulate_and_nodes_begin_anew() -> None:
    x = Value(3.0)
    y = x * x
    z = y * y
    for times in (1, 2, 3):
        z.backward()
        assert times * 4 * 27.0 == x.grad
        assert 2 * 9.0 == y.grad
    x.grad = None
    y.backward()
    assert 6.0 == x.grad


def test_two_losses_over_one_graph_add_up() -> None:
    x = Value(np.array([1.0, 2.0]))
    shared = x * x
    first, second = shared.sum(), (shared * 3.0).sum()
    first.backward()
    second.backward()
    np.testing.assert_array_equal([8.0, 16.0], x.grad)


def test_gradients_inside_the_graph_are_kept_only_if_asked() -> None:
    x = Value(np.ones(3))
    y = x * 2.0
    z = y.sum()
    z.backward()
    assert y.grad is None
    z.backward(retain_grad=True)
    np.testing.assert_array_equal(np.ones(3), y.grad)
    assert 1.0 == z.grad


def test_backward_of_a_leaf_and_of_constants() -> None:
    x = Value(2.0)
    x.backward()
    x.backward(3.0)
    assert 4.0 == x.grad
    gradient = np.ones(2)
    leaf = Value(np.zeros(2))
    leaf.backward(gradient)
    gradient[0] = 9.0
    np.testing.assert_array_equal(np.ones(2), leaf.grad)
    ag.exp(3.0).backward()


def test_the_gradient_to_begin_with_is_a_factor() -> None:
    x = Value(np.ones((2, 2), np.float32))
    ag.mse(x, np.zeros((2, 2))).backward(0.25)
    np.testing.assert_array_equal(np.full((2, 2), 0.125, np.float32), x.grad)
    assert np.float32 == x.grad.dtype


def test_the_users_gradient_is_never_written_to() -> None:
    x = Value(np.ones((2, 3)))
    direction = np.ones((2, 4))
    ag.linear(x, Value(np.ones((3, 4))), None, "tanh").backward(direction)
    y = x + 1.0
    y.backward(np.ones((2, 3)))
    np.testing.assert_array_equal(np.ones((2, 4)), direction)


def test_one_gradient_array_given_twice_is_not_shared() -> None:
    x, y = Value(np.ones(3)), Value(np.ones(3))
    (x + y).sum().backward()
    x.grad += 5.0
    np.testing.assert_array_equal(np.ones(3), y.grad)
    a = x * 1.0
    b = a + a  # the same array arrives twice at one node
    (b + a).sum().backward(retain_grad=True)
    np.testing.assert_array_equal(np.full(3, 3.0), a.grad)
    np.testing.assert_array_equal(np.ones(3), b.grad)


def test_fused_activation_does_not_spoil_a_shared_gradient() -> None:
    x, w = Value(np.array([[1.0, -1.0]])), Value(np.array([[2.0], [1.0]]))
    hidden = ag.linear(x, w, None, "tanh")
    other = x[:, :1] * 3.0
    total = hidden + other
    total.backward(retain_grad=True)
    np.testing.assert_array_equal([[1.0]], total.grad)
    slope = 1 - np.tanh(1.0) ** 2
    np.testing.assert_allclose([[2 * slope + 3.0, slope]], x.grad)


def test_a_parameter_in_its_home_used_twice() -> None:
    w = Value(np.array([[2.0]]))
    w.grad_buffer = np.full((1, 1), np.nan)
    out = ag.linear(ag.linear(np.array([[3.0]]), w), w)
    out.backward()
    assert w.grad is w.grad_buffer
    assert 12.0 == w.grad_buffer[0, 0]


def test_a_home_of_another_dtype() -> None:
    w = Value(np.ones((2, 2), np.float32))
    w.grad_buffer = np.zeros((2, 2))
    ag.linear(np.ones((1, 2)), w).sum().backward()
    np.testing.assert_array_equal(np.ones((2, 2)), w.grad_buffer)


def test_integers_among_numbers() -> None:
    x = Value(3)
    (2 * x * x - 1 + x * 2).backward()
    assert (14.0, float) == (x.grad, type(x.grad))


@pytest.mark.parametrize("data", [1.0, np.ones(2)])
def test_a_chain_of_a_million_nodes(data: Any) -> None:
    count = 1_000_000 if isinstance(data, float) else 50_000
    x = Value(data)
    y = x
    for _ in range(count):
        y = y + 1.0
    y.backward(np.ones_like(data) if not isinstance(data, float) else None)
    np.testing.assert_array_equal(np.ones_like(data), x.grad)
    del y  # freeing it is not recursive either


def test_a_wide_sum_and_rows_taken_one_by_one() -> None:
    x = Value(np.arange(3000.0).reshape(1000, 3))
    total = sum((row * row).sum() for row in x)
    assert isinstance(total, Value)
    total.backward()
    np.testing.assert_array_equal(2 * x.data, x.grad)


def test_a_graph_is_freed_with_its_last_value_without_the_collector() -> None:
    gc.disable()
    try:
        x = Value(np.ones(1000))
        y = ag.linear(x.reshape(1, -1), Value(np.ones((1000, 2))), None, "relu")
        loss = (y * y).sum() + x.mean()
        loss.backward()
        array = weakref.ref(y.data.base if y.data.base is not None else y.data)
        del y, loss
        assert array() is None
    finally:
        gc.enable()


def test_memory_does_not_grow() -> None:
    weight, bias = Value(np.ones((20, 10), np.float32)), Value(np.zeros(10, np.float32))
    x, labels = np.ones((32, 20), np.float32), np.zeros(32, int)

    def step() -> None:
        weight.grad = bias.grad = None
        ag.cross_entropy(ag.linear(x, weight, bias, "relu"), labels).backward()

    for _ in range(50):
        step()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(500):
            step()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000


# --- broadcasting ---------------------------------------------------------------------------------------------------


@given(
    hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3), st.sampled_from([np.float32, np.float64])
)
def test_broadcasting_is_undone(shapes: Any, dtype: Any) -> None:
    (first, second), result = shapes.input_shapes, shapes.result_shape
    a, b = Value(np.full(first, 2.0, dtype)), Value(np.full(second, 3.0, dtype))
    out = a * b
    assert result == out.shape
    out.backward(np.ones(result))
    size = int(np.prod(result))
    for value, other, shape in ((a, 3.0, first), (b, 2.0, second)):
        assert (shape, dtype) == (value.grad.shape, value.grad.dtype)
        repeats = size // max(1, int(np.prod(shape)))
        np.testing.assert_array_equal(np.full(shape, other * repeats), value.grad)


@given(hnp.mutually_broadcastable_shapes(num_shapes=1, base_shape=(2, 3, 2), max_dims=3), st.data())
def test_undo_broadcast_is_the_transpose_of_broadcasting(shapes: Any, data: Any) -> None:
    # <broadcast(x), g> = <x, undo(g)> for all x and g
    shape, result = shapes.input_shapes[0], shapes.result_shape
    numbers = st.integers(-5, 5)
    x = data.draw(hnp.arrays(np.float64, shape, elements=numbers))
    g = data.draw(hnp.arrays(np.float64, result, elements=numbers))
    assert float(np.sum(np.broadcast_to(x, result) * g)) == float(np.sum(x * undo_broadcast(g, shape)))


@given(st.lists(st.integers(0, 9), max_size=20))
def test_repeated_indices_add_up(rows: list[int]) -> None:
    x = Value(np.arange(10.0))
    x[rows].sum().backward()
    np.testing.assert_array_equal(np.bincount(np.asarray(rows, int), minlength=10), x.grad)


# --- arithmetic edge: ties, zeros -----------------------------------------------------------------------------------


def test_ties_share_the_gradient() -> None:
    x = Value([1.0, 3.0, 3.0])
    x.max().backward()
    np.testing.assert_array_equal([0.0, 0.5, 0.5], x.grad)
    a, b = Value([1.0, 2.0]), Value([1.0, 5.0])
    ag.maximum(a, b).sum().backward()
    np.testing.assert_array_equal([[0.5, 0.0], [0.5, 1.0]], [a.grad, b.grad])


def test_roots_have_gradient_zero_where_they_have_none() -> None:
    for f in (ag.norm, ag.std):
        x = Value(np.zeros(3))
        f(x).backward()
        np.testing.assert_array_equal(np.zeros(3), x.grad)


def test_norm_does_not_overflow() -> None:
    x = Value(np.array([3e200, 4e200]))
    length = ag.norm(x)
    length.backward()
    np.testing.assert_allclose([5e200, 0.6, 0.8], [length.item(), *x.grad])


def test_products_with_zeros() -> None:
    for data in ([2.0, 0.0, 3.0], [0.0, 0.0, 3.0]):
        ag.check_grads(ag.prod, data)


def test_powers_of_zero() -> None:
    for exponent in (0, 1, 2, np.array([0.0, 1.0, 2.0])):
        ag.check_grads(lambda x, exponent=exponent: x**exponent, [1.5, 1.5, 1.5])
    x = Value(np.zeros(3))
    (x ** np.array([0.0, 1.0, 2.0])).sum().backward()
    np.testing.assert_array_equal([0.0, 1.0, 0.0], x.grad)
    b = Value([1.0, 2.0])
    (0.0**b).sum().backward()
    np.testing.assert_array_equal([0.0, 0.0], b.grad)


def test_logsumexp_of_infinities() -> None:
    x = Value(np.array([[-np.inf, -np.inf], [0.0, -np.inf]]))
    np.testing.assert_array_equal([-np.inf, 0.0], ag.logsumexp(x, axis=1).data)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_of_huge_logits(dtype: Any) -> None:
    logits = Value(np.array([[1e4, -1e4], [-1e4, 1e4]], dtype))
    loss = ag.cross_entropy(logits, np.array([0, 0]))
    loss.backward()
    assert 1e4 == loss.item()
    np.testing.assert_array_equal(np.array([[0, 0], [-0.5, 0.5]], dtype), logits.grad)


def test_dropout_keeps_the_mean_and_follows_its_generator() -> None:
    x = Value(np.ones(100_000, np.float32))
    once, again = (ag.dropout(x, 0.25, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(once.data, again.data)
    assert abs(1.0 - float(once.data.mean())) < 0.01
    assert {0.0, np.float32(4 / 3)} == set(np.unique(once.data))
