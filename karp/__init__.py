"""karp: an autograd engine, MLPs on it, and their training in one process or in many.

    Value, its operations, and tools for graphs      karp.autograd
    MLP, losses                                      karp.nn
    SGD, Adam, schedules                             karp.optim
    tables and the sampling plan                     karp.data
    Trainer                                          karp.trainer
    fit, load, prepare: from a table to a model      karp.tabular
    models as ONNX files, and in torch's layout      karp.export

Rooms are imported when they are first used, so that a process imports only what it needs; a launcher not even NumPy.

One thing happens at import: a worker's process takes the variables of its launcher (environment.py), so that processes
which it starts from then on are no part of the run.
"""

from typing import TYPE_CHECKING

from karp import environment
from karp.lazy import lazy_attributes

if TYPE_CHECKING:
    from karp import autograd, data, errors, export, nn, optim
    from karp.autograd import Value, check_grads, draw, find_nan, grad, guard, no_grad, value_and_grad
    from karp.tabular.fit import fit
    from karp.tabular.model import load
    from karp.tabular.preparation.preparing import prepare
    from karp.trainer.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "Trainer",
    "Value",
    "__version__",
    "autograd",
    "check_grads",
    "data",
    "draw",
    "errors",
    "export",
    "find_nan",
    "fit",
    "grad",
    "guard",
    "load",
    "nn",
    "no_grad",
    "optim",
    "prepare",
    "value_and_grad",
]

_ENGINE = ("Value", "check_grads", "draw", "find_nan", "grad", "guard", "no_grad", "value_and_grad")
__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        **dict.fromkeys(("autograd", "data", "errors", "export", "nn", "optim"), ""),
        **dict.fromkeys(_ENGINE, "autograd"),
        "Trainer": "trainer.trainer",
        "fit": "tabular.fit",
        "load": "tabular.model",
        "prepare": "tabular.preparation.preparing",
    },
)

environment.take(environment.SERVER, environment.REPLAY)
