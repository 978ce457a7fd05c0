"""`Module`, and the walk that finds its parameters and names them.

The walk goes through attributes, and through lists, tuples and dicts in them: there a value has a path, which is its
name, and an order. Any other object in an attribute (a set, an object of another class, a partial, a closure) has
neither, and is only searched for values, which would be neither trained nor saved. A model with one is refused. (The
search uses the garbage collector, which knows what an object of any class refers to.)
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from reprlib import recursive_repr
from reprlib import repr as short
from types import CodeType, FrameType, FunctionType, MemberDescriptorType, ModuleType, TracebackType
from typing import Any

import numpy as np

from karp.autograd import Value
from karp.errors import SettingError
from karp.parameters import Parameters


class Module:
    """The base class of models and layers: set values and modules as attributes, and define `__call__`.

    The parameters are the values in attributes, in lists, tuples and dicts there, at any depth, and in modules among
    them. The keys of a dict are text or whole numbers. Values that are kept in any other way are refused
    (SettingError) when the parameters are read.

    >>> class Scale(Module):
    ...     def __init__(self) -> None:
    ...         self.factor = Value(np.ones(2))
    ...     def __call__(self, x, rng=None):
    ...         return x * self.factor
    >>> class Heads(Module):
    ...     def __init__(self) -> None:
    ...         self.body = [Scale(), Scale()]
    ...         self.heads = {"size": Scale()}
    >>> [name for name, _ in Heads().named_parameters()]
    ['body.0.factor', 'body.1.factor', 'heads.size.factor']
    >>> Heads()
    Heads()
      body.0: Scale()
        factor: float64 (2,)
      body.1: Scale()
        factor: float64 (2,)
      heads.size: Scale()
        factor: float64 (2,)
    """

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """Apply the module to a batch: with `rng`, as in training, random operations are applied, without it not."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def named_parameters(self) -> Iterator[tuple[str, Value]]:
        """Iterate over the name and value of each parameter, in order of definition; one with two paths comes once.

        Raises SettingError for a value that is kept where it can have no name, and for two of one name.
        """
        return iter(_find(self).items())

    @property
    def parameters(self) -> Parameters:
        """All parameters as one vector: the same object until the model has others, or one has other data.

        A new object moves the parameters' data into its vector (see `Parameters`). Each read walks through the whole
        model, some microseconds a layer: read it before a loop, not in it. Raises SettingError where
        `named_parameters` does, for a model without parameters, and for parameters of several dtypes.
        """
        named = _find(self)
        vector: Parameters | None = vars(self).get("_vector")
        if vector is None or not vector.holds(named):
            vector = vars(self)["_vector"] = Parameters(named)
        return vector

    def zero_grad(self) -> None:
        """Set all gradients to None, as before the first backward; in a loop `Parameters.zero_grad` is faster."""
        for value in _find(self).values():
            value.grad = None

    @recursive_repr("...")
    def __repr__(self) -> str:
        settings = ", ".join(
            f"{name}={short(item)}"
            for name, item in vars(self).items()
            if isinstance(item, (str, int, float)) and not name.startswith("_")
        )
        lines = [f"{type(self).__name__}({settings})"]
        for name, item in self.named_contents():
            if isinstance(item, Value):
                text = f"{item.dtype} {item.shape}"
            else:
                text = repr(item) if isinstance(item, Module) else getattr(item, "__name__", short(item))
            lines += f"{name}: {text}".split("\n")
        return "\n  ".join(lines)

    def named_contents(self) -> Iterable[tuple[str, Any]]:
        """Return the names of the values and modules that this one holds, in lists and dicts too, and these."""
        return _contents(_attributes(self, "", []), "", {id(self)})

    def __getstate__(self) -> Any:
        # A copy has arrays of its own, which are not views of the vector.
        state: Any = super().__getstate__()  # a dict of attributes, or a tuple of that and the slots
        if isinstance(state, tuple):
            return _without_vector(state[0]), *state[1:]
        return _without_vector(state)


def _without_vector(attributes: dict[str, Any] | None) -> dict[str, Any] | None:
    return attributes and {name: item for name, item in attributes.items() if name != "_vector"}


# --- the walk -------------------------------------------------------------------------------------------------------

Items = Iterable[tuple[Any, Any]]
Unnamed = tuple[str, Any, str]  # the path of an object that cannot name its values, the object, and what to do

_PLAIN = frozenset({str, int, float, bool, complex, bytes, type(None)})  # objects of these types hold no value
_OPAQUE = (type, ModuleType, FrameType, TracebackType, CodeType)  # objects of these types refer to the whole program
_OF_CLASSES = _PLAIN | {FunctionType, property, classmethod, staticmethod}  # attributes of a class that hold no value
_HOLDERS = frozenset({list, tuple, dict})
_OURS = ("karp.nn.module", "karp.nn.layers")
_ndarray = np.ndarray

_KEEP = "keep values and modules in attributes, lists, tuples or dicts of a module"
_KEY = "give it a key that is text or a whole number"
_AS_KEY = "it is a key; keep it as what is under a key"
_INIT = "it is an attribute of the class; set it in __init__, on self"


def _find(module: Module) -> dict[str, Value]:
    """Return the parameters by name; raises what `Module.named_parameters` raises."""
    named: dict[str, Value] = {}
    unnamed: list[Unnamed] = []
    seen = {id(module)}
    _walk(_attributes(module, "", unnamed), "", named, seen, unnamed)
    for name, item, advice in unnamed:
        leaf = _leaf_in(item, seen)
        if leaf is not None:
            raise SettingError(
                f"{type(module).__name__}.{name} ({type(item).__name__}) holds a value of shape {leaf.shape} that has"
                f" no name there, so it would be neither trained nor saved: {advice}. What is not to be trained is kept"
                " as an array (value.data) or outside of the model"
            )
    return named


def _walk(items: Items, prefix: str, named: dict[str, Value], seen: set[int], unnamed: list[Unnamed]) -> None:
    """Add to `named` the values among these items and below, and to `unnamed` objects that cannot name their values.

    `seen` has the ids of all objects visited, so a value with two paths has its first name, and cycles end. Raises
    SettingError for two values of one name.
    """
    for key, item in items:
        kind = item.__class__
        if kind in _PLAIN:
            continue
        if kind is Value:
            if item.operation is None and id(item) not in seen:
                seen.add(id(item))
                name = f"{prefix}{key}"
                if name in named:
                    raise SettingError(f"two values of the model have the name {name!r}: rename an attribute or a key")
                named[name] = item
        elif id(item) in seen:
            continue
        elif isinstance(item, (Module, list, tuple, dict)):
            seen.add(id(item))
            inner = f"{prefix}{key}."
            _walk(_items(item, inner, unnamed), inner, named, seen, unnamed)
        elif (kind is not _ndarray or item.dtype.hasobject) and not (key == "_vector" and kind is Parameters):
            unnamed.append((f"{prefix}{key}", item, _KEEP))


def _items(holder: Any, prefix: str, unnamed: list[Unnamed]) -> Items:
    """Return the items of a module, list, tuple or dict, each with its part of a name: a key, index or attribute.

    Add to `unnamed` the objects in it that have no such part, with the advice for a user who keeps values there.
    """
    if isinstance(holder, Module):
        return _attributes(holder, prefix, unnamed)
    if holder.__class__ not in _HOLDERS:
        unnamed += [(f"{prefix}{name}", item, _KEEP) for name, item in getattr(holder, "__dict__", {}).items()]
    if isinstance(holder, list):
        return enumerate(holder)
    if isinstance(holder, dict):
        unnamed += [(f"{prefix}{short(key)}", key, _AS_KEY) for key in holder if key.__class__ not in _PLAIN]
        named: list[tuple[Any, Any]] = []
        for key, item in holder.items():
            if isinstance(key, str):
                named.append((str.__str__(key), item))
            elif isinstance(key, (int, np.integer)) and not isinstance(key, bool):
                named.append((int(key), item))
            else:
                unnamed.append((f"{prefix}{short(key)}", item, _KEY))
        return named
    return zip(getattr(holder, "_fields", range(len(holder))), holder, strict=True)  # a namedtuple has names


def _attributes(module: Module, prefix: str, unnamed: list[Unnamed]) -> Items:
    """Return the attributes of a module, those in slots last; add to `unnamed` attributes of its class."""
    attributes = vars(module)
    kind = type(module)
    if kind.__module__ in _OURS:
        return attributes.items()
    slots: list[tuple[Any, Any]] = []
    for base in kind.__mro__:
        if base is Module or base is object:
            continue
        for name, item in vars(base).items():
            if type(item) is MemberDescriptorType:  # the descriptor of a slot
                if hasattr(module, name):
                    slots.append((name, getattr(module, name)))
            elif type(item) not in _OF_CLASSES and not name.startswith("__") and name not in attributes:
                unnamed.append((f"{prefix}{name}", item, _INIT))
    return [*attributes.items(), *slots] if slots else attributes.items()


def _leaf_in(root: Any, visited: set[int]) -> Value | None:
    """Return a leaf that `root` refers to, directly or not, except through visited objects; None if there is none."""
    if id(root) in visited or isinstance(root, _OPAQUE):
        return None
    stack, seen = [root], visited | {id(root)}
    while stack:
        item = stack.pop()
        if item.__class__ is Value:
            if item.operation is None:
                return item
            continue  # the inputs of a node are no part of the model
        for referent in _referents(item):
            if id(referent) not in seen and not isinstance(referent, _OPAQUE):
                seen.add(id(referent))
                stack.append(referent)
    return None


def _referents(item: Any) -> Iterable[Any]:
    """Return the objects that an object refers to, except a function's globals, which are the program's."""
    if item.__class__ is FunctionType:
        return (item.__closure__, item.__defaults__, item.__kwdefaults__, item.__dict__)
    if isinstance(item, _ndarray):  # the garbage collector does not know the elements of an array of objects
        return list(item.flat) if item.dtype.hasobject else ()
    return gc.get_referents(item)


def _contents(items: Items, prefix: str, seen: set[int]) -> Iterator[tuple[str, Value | Module]]:
    """Yield the values and modules among these items, and in lists, tuples and dicts there, under their names."""
    for key, item in items:
        if isinstance(item, Module) or (isinstance(item, Value) and item.operation is None):
            yield f"{prefix}{key}", item
        elif isinstance(item, (list, tuple, dict)) and id(item) not in seen:
            seen.add(id(item))
            yield from _contents(_items(item, "", []), f"{prefix}{key}.", seen)
