"""Walking a graph: the values that a value was computed from."""

from __future__ import annotations

from collections.abc import Iterator

from karp.autograd.value import Value


def walk(root: Value) -> Iterator[Value]:
    """Yield `root` and every value that it was computed from, each once, in no particular order.

    There is no recursion, so a chain of a million nodes works too.

    >>> x = Value(2.0)
    >>> sum(1 for _ in walk(x * x + 1.0))
    3
    """
    stack, seen = [root], {id(root)}
    while stack:
        value = stack.pop()
        yield value
        for source in value.inputs:
            if source.__class__ is Value and id(source) not in seen:
                seen.add(id(source))
                stack.append(source)


def leaves(root: Value) -> list[Value]:
    """Return the leaves that `root` was computed from, each once."""
    return [value for value in walk(root) if value.operation is None]
