"""Optimisers and learning-rate schedules, applied in place to the flat vector of the parameters.

Both are frozen dataclasses of numbers, so a message or a file can carry them by name: `to_dict` and `from_dict`.
`Updater` applies an optimiser to weights. The server has one, and a program without a Trainer can have one:

    parameters = model.parameters
    updater = optim.Updater(optim.SGD(lr=0.1), parameters)
    for x, y in batches:
        parameters.zero_grad()
        nn.cross_entropy(model(x), y).backward()
        updater.update(parameters.grad)
"""

from karp.optim.norm import norm
from karp.optim.plain import from_dict, to_dict
from karp.optim.rules import SGD, Adam, AdamW, Optimizer, RMSprop
from karp.optim.schedules import Constant, Cosine, CosLog, InverseScaling, Schedule, StepDecay, WarmUp
from karp.optim.updater import OptimizerState, Updater

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "CosLog",
    "Cosine",
    "InverseScaling",
    "Optimizer",
    "OptimizerState",
    "RMSprop",
    "Schedule",
    "StepDecay",
    "Updater",
    "WarmUp",
    "from_dict",
    "norm",
    "to_dict",
]
