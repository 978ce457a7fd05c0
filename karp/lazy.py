"""Attributes of a package that are imported when they are first used (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_attributes(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package whose attributes are in these of its modules.

    The name of a module that is the attribute itself is ''.
    """
    namespace = vars(sys.modules[package])

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from importlib import import_module

        module = import_module(f"{package}.{modules[name] or name}")
        attribute = getattr(module, name) if modules[name] else module
        namespace[name] = attribute
        return attribute

    return get, lambda: sorted({*namespace, *modules})
