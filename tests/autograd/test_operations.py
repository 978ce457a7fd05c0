"""Every operation against central differences, against torch, against its own shape rule, in float32 and 64."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karp import autograd as ag
from karp.autograd import Value
from karp.autograd.operations import TABLE
from karp.autograd.tools.graph import walk

_spec = importlib.util.spec_from_file_location("karp_test_cases", Path(__file__).with_name("cases.py"))
assert _spec is not None
assert _spec.loader is not None
cases: Any = importlib.util.module_from_spec(_spec)
sys.modules["karp_test_cases"] = cases
_spec.loader.exec_module(cases)
CASES = cases.CASES

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def nodes(value: Value) -> list[Value]:
    return [one for one in walk(value) if one.operation is not None]


@every
def test_gradients_are_the_slopes_of_the_function(case: Any) -> None:
    ag.check_grads(case.f, *case.arrays)


@pytest.mark.parametrize("case", [case for case in CASES if case.torch is not None], ids=lambda case: case.name)
def test_torch_agrees(case: Any) -> None:
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(array, requires_grad=True) for array in case.arrays]
    expected = case.torch(torch)(*tensors)
    values = [Value(array) for array in case.arrays]
    actual = case.f(*values)
    np.testing.assert_allclose(expected.detach().numpy(), actual.data, rtol=1e-12, atol=1e-14)
    direction = np.random.default_rng(1).standard_normal(actual.shape)
    expected.backward(torch.tensor(direction))
    actual.backward(direction)
    for tensor, value in zip(tensors, values, strict=True):
        np.testing.assert_allclose(tensor.grad.numpy(), value.grad, rtol=1e-10, atol=1e-12)


@every
def test_the_shape_rule_gives_the_shape_of_the_result(case: Any) -> None:
    found = nodes(case.f(*[Value(array) for array in case.arrays]))
    assert found
    for node in found:
        assert node.operation is not None
        assert node.operation.shape(*node.operands) == node.shape


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_have_the_dtype_and_shape_of_their_data(case: Any, dtype: Any) -> None:
    values = [Value(np.asarray(array, dtype)) for array in case.arrays]
    result = case.f(*values)
    assert dtype == result.dtype
    result.backward(np.ones(result.shape), retain_grad=True)
    for value in [*values, *nodes(result)]:
        assert (value.data.dtype, value.data.shape) == (value.grad.dtype, value.grad.shape)
        assert type(value.grad) is np.ndarray


@every
def test_a_second_backward_gives_the_same_again(case: Any) -> None:
    values = [Value(array) for array in case.arrays]
    result = case.f(*values)
    direction = np.random.default_rng(2).standard_normal(result.shape)
    result.backward(direction)
    once = [value.grad.copy() for value in values]
    result.backward(direction)
    for first, value in zip(once, values, strict=True):
        np.testing.assert_allclose(2 * first, value.grad, rtol=1e-12)


@every
def test_gradients_are_written_into_their_homes(case: Any) -> None:
    plain = [Value(array) for array in case.arrays]
    housed = [Value(array) for array in case.arrays]
    for value in housed:
        value.grad_buffer = np.full(value.shape, np.nan)
    direction = np.ones(case.f(*plain).shape)
    case.f(*plain).backward(direction)
    case.f(*housed).backward(direction)
    for expected, value in zip(plain, housed, strict=True):
        assert value.grad is value.grad_buffer
        np.testing.assert_array_equal(expected.grad, value.grad_buffer)
    case.f(*housed).backward(direction)  # a second graph adds in place
    for expected, value in zip(plain, housed, strict=True):
        assert value.grad is value.grad_buffer
        np.testing.assert_allclose(2 * expected.grad, value.grad_buffer)


@every
def test_results_are_new_arrays_and_read_only(case: Any) -> None:
    values = [Value(array) for array in case.arrays]
    found = nodes(case.f(*values))
    assert found
    for node in found:
        assert not any(node.data is operand for operand in node.operands)
        assert not node.data.flags.writeable
    assert all(value.data.flags.writeable for value in values)


@every
def test_gradients_of_leaves_share_no_memory(case: Any) -> None:
    values = [Value(array.copy()) for array in case.arrays]
    result = case.f(*values)
    direction = np.ones(result.shape)
    result.backward(direction)
    arrays = [value.grad for value in values]
    others = [direction, *[value.data for value in values], result.data]
    for place, array in enumerate(arrays):
        for other in [*others, *arrays[place + 1 :]]:
            assert not np.shares_memory(array, other)


def test_every_row_of_the_table_has_a_case() -> None:
    covered = set()
    for case in CASES:
        covered |= {node.operation.name for node in nodes(case.f(*[Value(array) for array in case.arrays]))}  # type: ignore[union-attr]
    assert set(TABLE) == covered


SCALARS = [
    ("add", lambda a, b: a + b),
    ("subtract", lambda a, b: a - b),
    ("multiply", lambda a, b: a * b),
    ("divide", lambda a, b: a / b),
    ("power", lambda a, b: a**b),
    ("maximum", ag.maximum),
    ("minimum", ag.minimum),
    ("functions", lambda a, b: a.exp() + b.log() + a.sqrt() + b.tanh() + a.sigmoid() + (a - b).relu() + abs(a)),
    ("more", lambda a, b: ag.sin(a) + ag.cos(b) + ag.expm1(a) + ag.log1p(b) + ag.square(a) + ag.gelu(a) + ag.elu(-a)),
    ("reductions", lambda a, b: ag.sum(a) * ag.mean(b) + ag.max(a) + ag.prod(b) + ag.softplus(a) + ag.silu(b)),
    ("where", lambda a, b: ag.where(True, a, b) * ag.clip(b, 0.0, 9.0)),
    ("constants", lambda a, b: 2 - a / 3 + 4**b - b**2),
]


@pytest.mark.parametrize(("name", "f"), SCALARS)
def test_numbers_stay_numbers_and_agree_with_arrays(name: str, f: Any) -> None:
    a, b = Value(0.7), Value(1.3)
    out = f(a, b)
    out.backward()
    x, y = Value([0.7]), Value([1.3])
    array = f(x, y)
    array.backward([1.0])
    assert [float] * 3 == [type(one) for one in (out.data, a.grad, b.grad)]
    np.testing.assert_allclose([array.data[0], x.grad[0], y.grad[0]], [out.data, a.grad, b.grad], rtol=1e-14)
    ag.check_grads(f, 0.7, 1.3)
