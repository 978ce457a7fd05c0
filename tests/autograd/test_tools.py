"""NumPy's protocols, no_grad, find_nan, the guard, gradients of functions, the checker, drawings."""

import re
import threading
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karp import autograd as ag
from karp import nn, optim
from karp.autograd import Value
from karp.autograd.operation import Operation, same_shape
from karp.autograd.value import apply
from karp.errors import GraphError, NotFiniteError, ShapeError

ARRAY = np.array([[0.5, 1.0, 2.0], [1.5, 0.25, 3.0]])

# --- NumPy's protocols ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        np.exp,
        np.log,
        np.sqrt,
        np.tanh,
        np.sin,
        np.cos,
        np.abs,
        np.square,
        np.negative,
        np.expm1,
        np.log1p,
        lambda v: np.ones(3) * v,
        lambda v: np.ones((2, 1)) - v,
        lambda v: np.float64(2.0) * v,
        lambda v: np.float32(2) / v,
        lambda v: np.add(v, v),
        lambda v: np.power(v, 2),
        lambda v: np.power(np.float64(2.0), v),
        lambda v: ARRAY @ v.T,
        lambda v: np.matmul(v, ARRAY.T),
        lambda v: np.dot(v, ARRAY.T),
        lambda v: np.dot(2.0, v),
        lambda v: np.maximum(v, 1.1),
        lambda v: np.sum(v, axis=0),
        lambda v: np.sum(v),
        lambda v: np.mean(v, axis=1, keepdims=True),
        lambda v: np.max(v, 0),
        lambda v: np.min(v),
        lambda v: np.prod(v, axis=-1),
        lambda v: np.var(v, axis=0, ddof=1),
        lambda v: np.std(v),
        lambda v: np.linalg.norm(v, axis=1),
        np.linalg.norm,
        lambda v: np.reshape(v, (3, 2)),
        np.ravel,
        np.transpose,
        lambda v: np.swapaxes(v, 0, 1),
        lambda v: np.squeeze(np.expand_dims(v, 0)),
        lambda v: np.broadcast_to(v, (2, 2, 3)),
        lambda v: np.concatenate([v, ARRAY], axis=1),
        lambda v: np.stack([v, v]),
        lambda v: np.split(v, 3, axis=1)[1],
        lambda v: np.where(ARRAY > 1, v, 0.0),
        lambda v: np.clip(v, 0.3, 1.2),
    ],
)
def test_numpy_functions_give_values_with_gradients(f: Any) -> None:
    value = Value(ARRAY)
    result = f(value)
    assert Value is type(result)
    expected = np.asarray([float(one) for one in np.ravel(f(ARRAY))])
    np.testing.assert_allclose(expected, np.ravel(result.data), rtol=1e-12)
    ag.check_grads(f, ARRAY)


def test_questions_have_plain_answers() -> None:
    value = Value(ARRAY)
    assert ((2, 3), 2, 6) == (np.shape(value), np.ndim(value), np.size(value))
    assert [2, 2] == np.argmax(value, axis=1).tolist()
    assert np.allclose(value, ARRAY)
    assert np.isfinite(value).all()
    assert [[False, False, True], [True, False, True]] == np.greater(value, 1).tolist()
    assert np.ndarray is type(np.zeros_like(value))


@pytest.mark.parametrize(
    "f",
    [
        np.floor,
        np.sign,
        np.arctan,
        lambda v: np.add.reduce(v),
        lambda v: np.exp(v, out=np.zeros((2, 3))),
        lambda v: np.sum(v, dtype=np.float32),
        np.median,
        np.sort,
        np.cumsum,
        lambda v: np.linalg.norm(v, ord=1),
        lambda v: np.einsum("ij->i", v),
        np.linalg.svd,
        lambda v: np.where(v),
        lambda v: np.exp(v, dtype=np.float32),
        lambda v: np.ones((2, 3)).__iadd__(v),
        lambda v: np.array([1, "a"], object) * v,
        np.vstack,
    ],
)
def test_what_is_not_differentiable_here_says_so(f: Any) -> None:
    with pytest.raises(GraphError):
        f(Value(ARRAY))


# --- modes ----------------------------------------------------------------------------------------------------------


def test_no_grad_records_nothing() -> None:
    x, w = Value(2.0), Value(np.ones((2, 2)))
    with ag.no_grad():
        results = [x * x, x.tanh(), ag.linear(np.ones((1, 2)), w, None, "relu"), ag.cross_entropy(w, np.array([0, 1]))]
    for result in results:
        assert (None, ()) == (result.operation, result.inputs)
    assert (x * x).operation is not None
    assert [4.0, np.tanh(2.0)] == [one.data for one in results[:2]]


def test_no_grad_nests_decorates_and_ends_with_an_exception() -> None:
    @ag.no_grad()
    def inside(depth: int) -> Any:
        return inside(depth - 1) if depth else (Value(1.0) * 2.0).operation

    assert inside(3) is None
    with pytest.raises(KeyError), ag.no_grad(), ag.no_grad():
        raise KeyError
    assert (Value(1.0) * 2.0).operation is not None


def test_no_grad_is_of_one_thread() -> None:
    recorded = []

    def other() -> None:
        recorded.append((Value(1.0) * 2.0).operation is not None)

    with ag.no_grad():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert [True] == recorded


def line_of(words: str) -> str:
    lines = Path(__file__).read_text().splitlines()
    return f"{__file__}:{next(place for place, line in enumerate(lines, 1) if line.strip().startswith(words))}"


def test_find_nan_names_the_operation_and_the_line_forward() -> None:
    x = Value([1.0, 0.0])
    with np.errstate(all="ignore"), ag.find_nan():
        y = x * 2.0
        with pytest.raises(NotFiniteError) as caught:
            ag.log(y)  # the culprit
    assert "log of shape (2,) made 1 infinity" in str(caught.value)
    assert line_of("ag.log(y)  # the culprit") in str(caught.value)


def test_find_nan_names_the_operation_and_the_line_backward() -> None:
    x = Value([4.0, 0.0])
    with np.errstate(all="ignore"), ag.find_nan():
        y = ag.sqrt(x)  # infinite slope at 0
        with pytest.raises(NotFiniteError) as caught:
            (y * 2.0).sum().backward()
    assert "the gradient of sqrt of shape (2,)" in str(caught.value)
    assert line_of("y = ag.sqrt(x)  # infinite slope") in str(caught.value)


def test_find_nan_on_numbers_and_in_methods_and_protocols() -> None:
    for f in (lambda x: x / 0.0, lambda x: x.exp(), np.exp, lambda x: x * 1e308, lambda x: 2.0**x):
        with (
            np.errstate(all="ignore"),
            ag.find_nan(),
            pytest.raises(NotFiniteError, match=r"made 1 infinity at .*test_tools"),
        ):
            f(Value(2000.0))
    zero = Value(0.0)
    with np.errstate(all="ignore"), ag.find_nan():
        root = zero**0.5
        with pytest.raises(NotFiniteError, match="gradient of power"):
            root.backward()


def test_find_nan_tells_a_bad_input_from_a_bad_operation() -> None:
    with ag.find_nan(), pytest.raises(NotFiniteError, match=r"linear was given 1 NaN \(operand 0"):
        ag.linear(np.array([[np.nan, 1.0]]), Value(np.ones((2, 2))))


def test_find_nan_lets_a_good_step_pass() -> None:
    model = nn.MLP(3, [4], 2)
    with ag.find_nan():
        nn.cross_entropy(model(np.ones((2, 3))), np.array([0, 1])).backward()
    assert all(value.grad is not None for _, value in model.named_parameters())


# --- the in-place guard ---------------------------------------------------------------------------------------------


def test_results_cannot_be_written_to() -> None:
    y = Value(np.ones(3)) * 2.0
    with pytest.raises(ValueError, match="read-only"):
        y.data[0] = 5.0


def test_parameters_are_guarded_against_updates_without_a_switch() -> None:
    model = nn.MLP(3, [4], 2)
    updater = optim.Updater(optim.SGD(lr=0.1), model.parameters)
    batch, target = np.ones((5, 3), np.float32), np.zeros(5, int)
    old = nn.cross_entropy(model(batch), target)
    nn.cross_entropy(model(batch), target).backward()
    updater.update(model.parameters.grad)
    before = model.parameters.grad.copy()
    with pytest.raises(GraphError, match=r"the parameter of shape .* that linear read .* was written to between"):
        old.backward()
    np.testing.assert_array_equal(before, model.parameters.grad)


@pytest.mark.parametrize("size", [3, 2000, 100_000])
def test_under_guard_an_operand_written_to_after_its_use_is_found(size: int) -> None:
    leaf = Value(np.ones(size))
    constant = np.full(size, 2.0)
    for array in (leaf.data, constant):
        with ag.guard():
            loss = (leaf * constant * leaf).sum()
            array[-2] = 3.0  # one element is enough
            with pytest.raises(GraphError, match=r"written to between forward and backward.*copy"):
                loss.backward()
        assert leaf.grad is None


def test_under_guard_parameters_are_compared_too() -> None:
    layer = nn.Linear(3, 2)
    parameters = layer.parameters
    with ag.guard():
        loss = layer(Value(np.ones((4, 3), np.float32))).sum()
        parameters.data[1] += 1.0  # by hand, without mark_modified
        with pytest.raises(GraphError, match="the parameter of shape"):
            loss.backward()


def test_without_guard_constants_are_the_programs_own_affair() -> None:
    weight, batch = Value(np.ones(3)), np.ones(3)
    loss = (weight * batch).sum()
    batch[...] = 5.0
    loss.backward()  # not what the loss was computed from; guard() is there to find it
    np.testing.assert_array_equal(batch, weight.grad)
    with ag.guard():
        loss.backward()  # made outside: nothing is known of it


def test_strided_operands_are_looked_at_too() -> None:
    array = np.ones((400, 400))
    weight = Value(np.ones((400, 2)))
    with ag.guard():
        loss = ag.linear(array.T, weight).sum()
        array[3, 4] = 2.0
        with pytest.raises(GraphError, match="linear read"):
            loss.backward()


@ag.guard()
def test_what_no_rule_reads_may_be_written_to() -> None:
    leaf, constant = Value(np.ones(3)), np.ones(3)
    loss = (leaf + constant).sum() + (leaf * 2.0).sum()
    leaf.data[0] = constant[0] = 9.0
    loss.backward()
    np.testing.assert_array_equal(np.full(3, 3.0), leaf.grad)
    weight = Value(np.ones((2, 2)))
    out = ag.linear(np.ones((1, 2)), weight)  # x is constant: backward does not read the weight
    weight.data += 1.0
    out.sum().backward()


def test_an_updated_parameter_is_found() -> None:
    model = nn.MLP(3, [4], 2, dtype=np.float64)
    parameters = model.parameters
    loss = nn.cross_entropy(model(np.ones((2, 3))), np.array([0, 1]))
    loss.backward()
    parameters.data[:] *= 0.9
    parameters.mark_modified()
    with pytest.raises(GraphError, match=r"parameter of shape \(4, 2\) that linear read"):
        loss.backward()
    nn.cross_entropy(model(np.ones((2, 3))), np.array([0, 1])).backward()


def test_a_new_array_for_a_leaf_is_no_write() -> None:
    x = Value(np.array([1.0, 2.0]))
    loss = (x * x).sum()
    x.data = x.data * 10.0
    loss.backward()
    np.testing.assert_array_equal([2.0, 4.0], x.grad)


# --- gradients of functions -----------------------------------------------------------------------------------------


def test_grad_and_value_and_grad() -> None:
    assert 12.0 == ag.grad(lambda x: x**3)(2.0)
    value, (dx, dy) = ag.value_and_grad(lambda x, y, scale: (x * y).sum() * scale, (0, 1))(ARRAY, 2.0, scale=3.0)
    assert 6.0 * ARRAY.sum() == value
    np.testing.assert_array_equal(np.full((2, 3), 6.0), dx)
    assert 3.0 * ARRAY.sum() == dy
    np.testing.assert_array_equal(np.zeros(2), ag.grad(lambda x: 3.0)(np.ones(2)))
    with pytest.raises(ShapeError, match="one number"):
        ag.grad(lambda x: x)(ARRAY)
    with pytest.raises(GraphError, match="no argument 1"):
        ag.grad(lambda x: x, 1)(2.0)


def test_grad_leaves_other_values_alone() -> None:
    other, housed = Value(2.0), Value(np.ones(1))
    other.grad, housed.grad_buffer = 5.0, np.full(1, 7.0)
    assert 2.0 == ag.grad(lambda x: (x * other * housed).sum())(3.0)
    assert 5.0 == other.grad
    assert (None, 7.0) == (housed.grad, housed.grad_buffer[0])


# --- the checker ----------------------------------------------------------------------------------------------------

WRONG = Operation("wrong", lambda a: a * a, same_shape, (lambda g, out, a: 2.002 * g * a,))  # by a thousandth
SLIGHT = Operation("slight", lambda a: np.exp(a), same_shape, (lambda g, out, a: g * out * (1 + 1e-3 * (a > 1.4)),))


@pytest.mark.parametrize("operation", [WRONG, SLIGHT])
@pytest.mark.parametrize("data", [1.5, [0.3, -0.7, 1.5]])
def test_the_checker_finds_a_gradient_wrong_by_a_thousandth(operation: Operation, data: Any) -> None:
    with pytest.raises(GraphError, match=r"gradient of input 0.*0\.10% off"):
        ag.check_grads(lambda x: apply(operation, x), data)


def test_the_checker_finds_a_missing_gradient_and_chance() -> None:
    with pytest.raises(GraphError, match="input 1"):
        ag.check_grads(lambda x, y: x * y.detach(), 2.0, 3.0)
    rng = np.random.default_rng(0)
    with pytest.raises(GraphError, match="another result"):
        ag.check_grads(lambda x: ag.dropout(x, 0.5, rng), np.ones(50))
    with pytest.raises(GraphError, match="must give a Value"):
        ag.check_grads(lambda x: 2.0, 1.0)


def test_the_checker_takes_float32_and_large_inputs() -> None:
    model = nn.MLP(20, [30], 3, activation="tanh")
    weights = [value for _, value in model.named_parameters()]

    def loss(*values: Value) -> Value:
        hidden = ag.linear(np.ones((2, 20)), values[0], values[1], "tanh")
        return nn.cross_entropy(ag.linear(hidden, values[2], values[3]), np.array([0, 2]))

    ag.check_grads(loss, *weights)
    assert all(weight.grad is None for weight in weights)


# --- drawings -------------------------------------------------------------------------------------------------------


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    rects = ElementTree.fromstring(svg).findall("{http://www.w3.org/2000/svg}rect")
    solid = [rect for rect in rects[1:] if "stroke-dasharray" not in rect.attrib]
    return [tuple(float(rect.attrib[name]) for name in ("x", "y", "width", "height")) for rect in solid]  # type: ignore[misc]


def test_a_drawing_of_a_neuron_shows_names_data_and_gradients(tmp_path: Path) -> None:
    x, w, b = Value(2.0), Value(-3.0), Value(6.8814)
    out = (x * w + b).tanh()
    out.backward()
    picture = ag.draw(out, tmp_path / "graph.svg", names={"x": x, "w": w, "b": b, "<out>": out})
    assert picture.svg == (tmp_path / "graph.svg").read_text(encoding="utf-8") == picture._repr_svg_()
    for text in ("x", "data -3", f"grad {w.grad:.4g}", "&lt;out&gt; = tanh", "data 0.7071"):
        assert re.search(f">{re.escape(text)}<", picture.svg)
    assert 6 == len(boxes(picture.svg))


def test_a_drawing_of_a_model_frames_its_layers() -> None:
    model = nn.MLP(3, [4, 5], 2)
    loss = nn.cross_entropy(model(np.ones((2, 3))), np.array([0, 1]))
    loss.backward(retain_grad=True)
    svg = ag.draw(loss, names=model).svg
    for text in ("layers.0", "layers.2", "layers.1.weight", "4 x 5 float32", "linear relu", "cross_entropy"):
        assert f">{text}<" in svg
    assert 3 == svg.count("stroke-dasharray")
    assert ">layer 1<" in ag.draw(loss).svg


def test_boxes_do_not_overlap() -> None:
    values = [Value(float(place)) for place in range(6)]
    layer = [sum(v * (i + j + 0.5) for j, v in enumerate(values)).tanh() for i in range(3)]  # type: ignore[union-attr]
    out = sum(layer) * values[0]
    found = boxes(ag.draw(out).svg)
    assert len(found) > 50
    for place, (x, y, w, h) in enumerate(found):
        for u, v, p, q in found[place + 1 :]:
            assert x + w <= u or u + p <= x or y + h <= v + 0.2 or v + q <= y + 0.2


def test_drawing_a_leaf_a_deep_and_a_large_graph() -> None:
    assert ">data 2<" in ag.draw(Value(2.0)).svg
    x = Value(1.0)
    for _ in range(1200):
        x = x * 1.0
    with pytest.raises(GraphError, match="too many to read"):
        ag.draw(x, most=1000)
    ag.draw(x)
