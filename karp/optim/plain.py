"""Conversion of optimisers to plain types and back: ``{"name": "SGD", "lr": 0.1, ...}``, schedules nested."""

from __future__ import annotations

from dataclasses import fields
from reprlib import repr as short
from typing import Any

from karp.errors import SettingError
from karp.optim.rules import SGD, Adam, AdamW, Optimizer, RMSprop
from karp.optim.schedules import Constant, Cosine, CosLog, InverseScaling, Schedule, StepDecay, WarmUp

OPTIMIZERS = {kind.__name__: kind for kind in (SGD, Adam, AdamW, RMSprop)}
SCHEDULES = {kind.__name__: kind for kind in (Constant, StepDecay, Cosine, CosLog, InverseScaling, WarmUp)}


def to_dict(optimizer: Optimizer) -> dict[str, Any]:
    """Return the optimiser as plain types, every field by its name; raise SettingError for anything else.

    >>> to_dict(SGD(lr=WarmUp(0.1, steps=5)))["lr"]
    {'name': 'WarmUp', 'lr': 0.1, 'steps': 5}
    """
    if type(optimizer) not in OPTIMIZERS.values():
        raise SettingError(f"{optimizer!r:.60} is no optimiser; one is made like optim.SGD(lr=0.1)")
    return _plain(optimizer)


def from_dict(plain: object) -> Optimizer:
    """Rebuild the optimiser from what `to_dict` returned; nothing in ``plain`` is trusted.

    Raises:
        SettingError: an unknown name, an unknown or missing field, or a value that cannot be used; the
            message names the field and the value.

    >>> from_dict(to_dict(Adam(lr=0.01))) == Adam(lr=0.01)
    True
    """
    optimizer: Optimizer = _build(plain, OPTIMIZERS, "an optimiser")
    return optimizer


def _plain(thing: Optimizer | Schedule) -> dict[str, Any]:
    """Return an optimiser or a schedule as a dict of plain values, with its name."""
    plain: dict[str, Any] = {"name": type(thing).__name__}
    for field in fields(thing):
        value = getattr(thing, field.name)
        if isinstance(value, Schedule):
            value = _plain(value)
        plain[field.name] = list(value) if isinstance(value, tuple) else value
    return plain


def _build(plain: object, kinds: dict[str, Any], what: str) -> Any:
    """Build an optimiser or a schedule from a dict of plain values; raises SettingError if it describes none."""
    if not isinstance(plain, dict) or "name" not in plain:
        raise SettingError(f"{what} is a dict with a name, not {short(plain)}")
    name = plain["name"]
    if not isinstance(name, str) or name not in kinds:
        raise SettingError(f"{what} is one of {', '.join(kinds)}, not {short(name)}")
    kind = kinds[name]
    given = {field: value for field, value in plain.items() if field != "name"}
    known = [field.name for field in fields(kind)]
    for field in given:
        if field not in known:
            raise SettingError(f"{name}: no field {short(field)}; the fields are {', '.join(known)}")
    for field in known:
        if field not in given:
            raise SettingError(f"{name}: the field {field} is missing")
    if isinstance(given["lr"], dict) and (kind is WarmUp or name in OPTIMIZERS):
        # A WarmUp holds no WarmUp, so the recursion is at most three deep, whatever arrives.
        allowed = {key: schedule for key, schedule in SCHEDULES.items() if not (schedule is kind is WarmUp)}
        given["lr"] = _build(given["lr"], allowed, f"{name}: lr")
    return kind(**given)
