"""Models made of layers, their initial weights, and losses.

A `Module` is any object that holds parameters: values in its attributes, in lists, tuples and dicts of them, and in
other modules there. A parameter's name is its path: the weight of the first layer of an MLP is `layers.0.weight`. All
parameters together are one contiguous vector, `module.parameters`.

Weights are stored (inputs, outputs), so a layer is `x @ weight + bias` and no product needs a transposed copy.
All random numbers are drawn from a seed that is an argument.
"""

from karp.autograd.losses import binary_cross_entropy, cross_entropy, hinge, huber, mae, mse
from karp.nn.initialisers import INITIALISERS, glorot_normal, glorot_uniform, he_normal, he_uniform
from karp.nn.layers import ACTIVATIONS, MLP, Dropout, Embedding, LayerNorm, Linear, Sequential
from karp.nn.module import Module

__all__ = [
    "ACTIVATIONS", "INITIALISERS", "MLP", "Dropout", "Embedding", "LayerNorm", "Linear", "Module", "Sequential",
    "binary_cross_entropy", "cross_entropy", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "hinge",
    "huber", "mae", "mse",
]
