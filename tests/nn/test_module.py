"""Modules: where parameters are found, what they are called, what is refused, and what `repr` says."""

import collections
import copy
import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from karp import nn, optim
from karp.autograd import Value
from karp.errors import SettingError

X = np.random.default_rng(0).standard_normal((5, 3))


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def test_names_follow_attributes_lists_and_tuples() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            self.scale = Value(np.ones(2))
            self.other = "no parameter"

    class Outer(nn.Module):
        def __init__(self) -> None:
            self.first = Inner()
            self.pairs = [(Inner(), Value(np.ones(1))), Inner()]
            self.tied = self.first.scale
            self.result = Value(np.ones(1)) * 2.0

    assert ["first.scale", "pairs.0.0.scale", "pairs.0.1", "pairs.1.scale"] == names(Outer())


def test_parameters_are_found_again_when_a_model_changes() -> None:
    model = nn.MLP(3, [4], 2)
    twin = Value(model.layers[1].bias.data.copy())
    kept = model.parameters
    assert kept is model.parameters
    changes = [
        lambda: model.layers.append(nn.Linear(2, 2)),
        lambda: model.layers.__setitem__(0, nn.Linear(3, 4)),
        lambda: model.layers.__setitem__(1, Value(np.ones(3, np.float32))),
        lambda: model.layers.pop(),
        lambda: model.norms.append(Value(np.ones(1, np.float32))),
        lambda: model.norms.__setitem__(0, Value(np.ones(1, np.float32))),  # equal, and another
        lambda: setattr(model.layers[0], "bias", None),
        lambda: setattr(model, "extra", twin),
        lambda: delattr(model, "extra"),
    ]
    for change in changes:
        change()
        now = model.parameters
        assert now is not kept
        assert [id(value) for _, value in model.named_parameters()] == [id(value) for value in now.values]
        for value in now.values:
            value.grad = np.ones(value.shape, np.float32)
        model.zero_grad()
        assert all(value.grad is None for value in now.values)
        kept = now
    model.note = "no parameter"
    nn.Linear(1, 1)
    assert kept is model.parameters
    kept.values[0].data = kept.values[0].data.copy()  # no view of the vector any more
    assert kept is not model.parameters


def test_parameters_are_one_vector_and_are_kept_while_they_are_current() -> None:
    model = nn.MLP(3, [4], 2)
    parameters = model.parameters
    assert parameters is model.parameters
    nn.cross_entropy(model(X), np.array([0, 1, 0, 1, 0])).backward()
    assert all(np.shares_memory(value.grad, parameters.grad) for _, value in model.named_parameters())
    model.layers[0].weight.data = np.zeros((3, 4), np.float32)
    again = model.parameters
    assert again is not parameters
    model.layers.append(nn.Linear(2, 2))
    assert len(again.names) + 2 == len(model.parameters.names)


def test_a_copy_of_a_model_trains_on_a_vector_of_its_own() -> None:
    model = nn.MLP(3, [4], 2)
    before = model.parameters.data.copy()
    twin = copy.deepcopy(model)
    np.testing.assert_array_equal(model(X).data, twin(X).data)
    twin.parameters.data[:] += 1.0
    assert not np.array_equal(model(X).data, twin(X).data)
    twin(X).sum().backward()
    assert twin.parameters.grad.any()
    assert not model.parameters.grad.any()
    np.testing.assert_array_equal(before, model.parameters.data)


def test_zero_grad_forgets_all_gradients() -> None:
    model = nn.MLP(3, [4], 1)
    model(X).sum().backward()
    model.zero_grad()
    assert all(value.grad is None for _, value in model.named_parameters())


def test_weights_that_lie_elsewhere_are_the_same_parameters() -> None:
    """They were taken for new ones, and the model for a copy that no update reached."""
    model = nn.MLP(3, [4], 2)
    parameters = model.parameters
    parameters.keep_weights_in(parameters.data.copy())
    assert model.parameters is parameters


def test_the_parameters_of_a_layer_are_a_part_of_the_whole_models() -> None:
    model = nn.MLP(3, [4], 2)
    whole = model.parameters
    part = model.layers[1].parameters
    assert ("weight", "bias") == part.names
    assert np.shares_memory(whole.data, part.data)
    assert part is model.layers[1].parameters
    assert whole is model.parameters
    nn.cross_entropy(model(X), np.array([0, 1, 0, 1, 0])).backward()
    assert whole["layers.1.weight"].grad.tobytes() == part.grad[:8].tobytes()
    optim.Updater(optim.SGD(lr=0.5), part).update(part.grad)
    assert whole["layers.1.weight"].data.tobytes() == part.data[:8].tobytes()
    part.load({"weight": np.ones((4, 2)), "bias": np.full(2, 3.0)})
    assert [3, 3] == whole["layers.1.bias"].data.tolist()
    elsewhere = whole.data.copy()
    elsewhere.flags.writeable = False
    whole.keep_weights_in(elsewhere)
    again = model.layers[1].parameters
    assert again is not part
    assert np.shares_memory(elsewhere, again.data)
    assert not again.data.flags.writeable


# --- where a value has a name ---------------------------------------------------------------------------------------


def layer(outputs: int = 1) -> nn.Linear:
    return nn.Linear(2, outputs)


class Keeper(nn.Module):
    """Has a layer of its own, and keeps what it is given."""

    def __init__(self, kept: Any) -> None:
        self.body = nn.Linear(2, 2)
        self.kept = kept


Pair = collections.namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({"cls": layer(), "box": layer()}, ["cls.weight", "cls.bias", "box.weight", "box.bias"]),  # in their order
        ([{"a": {"b": (layer(),)}}], ["0.a.b.0.weight", "0.a.b.0.bias"]),
        ({3: Value(1.0), np.int64(1): Value(2.0)}, ["3", "1"]),
        ({"age.years": Value(1.0), "": Value(2.0)}, ["age.years", ""]),
        (collections.OrderedDict(a=Value(1.0)), ["a"]),
        (collections.defaultdict(list, a=[Value(1.0)]), ["a.0"]),
        (Pair(Value(1.0), {"x": Value(2.0)}), ["left", "right.x"]),
        ({(1, 2): 3, None: "x", "a": Value(1.0)}, ["a"]),  # keys that lead to no value may be what they like
    ],
)
def test_dicts_and_what_is_in_them_have_names(kept: Any, expected: list[str]) -> None:
    assert ["body.weight", "body.bias", *(f"kept.{name}" for name in expected)] == names(Keeper(kept))


def test_a_dict_is_looked_through_again() -> None:
    model = Keeper({"a": layer(), "b": layer()})
    before = model.parameters
    assert before is model.parameters
    model.kept["a"] = model.kept.pop("a")  # the same, in another order
    assert ["kept.b.weight", "kept.b.bias", "kept.a.weight", "kept.a.bias"] == list(model.parameters.names[2:])
    model.kept["c"] = model.kept.pop("b")
    assert "kept.c.weight" in model.parameters
    model.kept.clear()
    assert ("body.weight", "body.bias") == model.parameters.names


def test_a_module_with_slots_keeps_and_copies_what_is_in_them() -> None:
    class Slotted(nn.Module):
        __slots__ = ("empty", "scale")

        def __init__(self) -> None:
            self.scale = Value(np.ones(2, np.float32))

    model = Slotted()
    assert ("scale",) == model.parameters.names
    twin = copy.deepcopy(model)
    twin.parameters.data[:2] = 5
    assert ([1, 1], [5, 5]) == (model.scale.data.tolist(), twin.scale.data.tolist())


def test_two_values_of_one_name_are_refused() -> None:
    with pytest.raises(SettingError, match=r"two values of the model have the name 'kept\.1'"):
        _ = Keeper({1: Value(1.0), "1": Value(2.0)}).parameters


@dataclasses.dataclass
class Record:
    item: Any


class Slots:
    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item


def array_of(item: Any) -> Any:
    array = np.empty((1, 2), object)
    array[0, 1] = item
    return array


def closure_of(item: Any) -> Callable[[Any], Any]:
    return lambda x: item(x)


HIDING: dict[str, Callable[[Any], Any]] = {
    "set": lambda item: {item},
    "frozenset": lambda item: frozenset([item]),
    "deque": lambda item: collections.deque([item]),
    "mappingproxy": lambda item: types.MappingProxyType({"a": item}),
    "UserDict": lambda item: collections.UserDict(a=item),
    "Record": Record,
    "Slots": Slots,
    "SimpleNamespace": lambda item: types.SimpleNamespace(a=[{"b": item}]),
    "partial": lambda item: functools.partial(print, item),
    "method": lambda item: item.__repr__,
    "function": closure_of,
    "ndarray": array_of,
    "list_iterator": lambda item: iter([item]),
}


@pytest.mark.parametrize("kind", HIDING)
@pytest.mark.parametrize("item", [nn.Linear(2, 3, bias=False), Value(np.ones((2, 3)))], ids=["module", "value"])
def test_a_value_that_has_no_name_is_refused(kind: str, item: Any) -> None:
    hide = HIDING[kind]
    says = rf"Keeper.kept \({kind}\) holds a value of shape \(2, 3\) that has no name there, so it would be neither"
    for ask in (lambda model: model.parameters, names, nn.Module.zero_grad):
        with pytest.raises(SettingError, match=says):
            ask(Keeper(hide(item)))
    deep = Keeper([{"a": hide(item)}])
    with pytest.raises(SettingError, match=rf"Keeper.kept.0.a \({kind}\)"):
        _ = deep.parameters
    named = Keeper(hide(item))
    named.also = item  # known by that name, it may be anywhere
    assert ["body.weight", "body.bias", "also.weight" if isinstance(item, nn.Module) else "also"] == names(named)


@pytest.mark.parametrize("key", [(1, 2), True, None, 1.5])
def test_a_key_that_is_no_name_is_refused(key: Any) -> None:
    with pytest.raises(SettingError, match=r"Keeper\.kept\..*: give it a key that is text or a whole number"):
        _ = Keeper({key: layer()}).parameters


class Layers(list[Any]):
    """A list that keeps more than its items."""


class Heads(dict[str, Any]):
    """A dict that keeps more than its items."""


class Pair(tuple[Any, ...]):
    """A tuple that keeps more than its items."""


@pytest.mark.parametrize("kind", [Layers, Heads, Pair])
def test_an_attribute_of_a_list_a_tuple_or_a_dict_has_no_name(kind: type[Any]) -> None:
    holder = kind()
    holder.last = layer()
    with pytest.raises(SettingError, match=r"Keeper\.kept\.last \(Linear\) holds a value"):
        _ = Keeper(holder).parameters
    holder.last = "text"
    assert ("body.weight", "body.bias") == Keeper(holder).parameters.names


def test_a_module_that_is_a_key_has_no_name() -> None:
    key = layer()
    with pytest.raises(SettingError, match=r"Keeper\.kept\.Linear.*: it is a key; keep it as what is under a key"):
        _ = Keeper({key: 1}).parameters
    known = Keeper({key: 1})
    known.also = key
    assert ["body.weight", "body.bias", "also.weight", "also.bias"] == names(known)


def test_what_stands_in_the_class_is_refused_unless_each_object_has_its_own() -> None:
    class Shared(nn.Module):
        scales: ClassVar[Any] = [Value(np.ones(2, np.float32))]

        def __init__(self) -> None:
            self.body = layer()

    with pytest.raises(SettingError, match=r"Shared\.scales \(list\).*set it in __init__, on self"):
        _ = Shared().parameters
    own = Shared()
    own.scales = [Value(np.zeros(2, np.float32))]
    assert ("body.weight", "body.bias", "scales.0") == own.parameters.names


def test_what_holds_no_value_of_its_own_is_left_alone() -> None:
    model = Keeper(None)
    inner = layer()
    for kept in (
        {1, 2}, np.random.default_rng(0), np, nn.Linear, functools.partial(model.body), model.__repr__, {model.body},
        Record(model), collections.deque([inner(np.ones((1, 2)))]), np.array([1, "a"], object), types, ValueError("x"),
        collections.deque([np.ones(3)]), model.parameters,
    ):  # fmt: skip
        model.kept = kept
        assert ["body.weight", "body.bias"] == names(model)
    model.kept = [model, [model.body]]
    model.kept.append(model.kept)
    assert ["body.weight", "body.bias"] == names(model)


# --- what repr says -------------------------------------------------------------------------------------------------


def test_repr_says_layers_and_settings() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), np.tanh, nn.LayerNorm(4), nn.MLP(4, [5], 2, dropout=0.5))
    expected = """\
Sequential()
  layers.0: Linear(3, 4, bias=False)
  layers.1: tanh
  layers.2: LayerNorm(4, eps=1e-05)
  layers.3: MLP(activation='relu', dropout=0.5)
    layers.0: Linear(4, 5, activation='relu')
    layers.1: Linear(5, 2)"""
    assert expected == repr(model)
    for text in ("Embedding(3, 4)", "Dropout(0.1)", "Linear(2, 1, activation='gelu')", "Module()"):
        assert text == repr(eval(text, vars(nn)))


def test_repr_of_any_module_comes_to_an_end() -> None:
    model = Keeper({"head": layer(), "back": None})
    model.size, model.scale = 3, Value(np.ones(2))
    model.kept["back"] = model
    model.result = model.scale * 2.0
    expected = """\
Keeper(size=3)
  body: Linear(2, 2)
  kept.head: Linear(2, 1)
  kept.back: ...
  scale: float64 (2,)"""
    assert expected == repr(model)
