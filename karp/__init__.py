"""karp: an autograd engine, MLPs on it, and their training in one process or in many.

    Value, and what is done with graphs of them      karp.autograd
    MLP, losses                                      karp.nn
    SGD, Adam, schedules                             karp.optim
    tables and the sampling plan                     karp.data
    Trainer                                          karp.trainer
"""

from typing import TYPE_CHECKING, Any

from karp import autograd, data, nn, optim
from karp.autograd import Value, no_grad

if TYPE_CHECKING:
    from karp.trainer import Trainer

__all__ = ["Trainer", "Value", "autograd", "data", "nn", "no_grad", "optim"]


def __getattr__(name: str) -> Any:
    """`Trainer` is imported when it is first asked for: an engine alone needs nothing of the protocol."""
    if name == "Trainer":
        from karp.trainer import Trainer

        return Trainer
    raise AttributeError(f"module 'karp' has no attribute {name!r}")
