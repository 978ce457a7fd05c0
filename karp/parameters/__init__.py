"""All trainable numbers of a model as one vector, and its gradient as a second one.

A model's tensors are named views into one flat *data* vector, and their gradients views at the same offsets of one
flat *gradient* vector. So whatever is done to a whole model (pull, push, average, update, clip, checkpoint, checksum,
shared memory) is one operation on one array. Backward writes each weight's gradient into the vector itself, so
nothing is gathered afterwards.

    name       layers.0.weight            layers.0.bias        layers.1.weight   ...
    vector    |################## gap |############## gap |################ gap |...
    offset     0                       k * 64 bytes

Every view is C-ordered and starts on a multiple of 64 bytes: a cache line, and the widest SIMD register. The gaps
between views are zero, stay zero under every optimiser, and are no part of the hash.

A `Layout` holds only the tensors' names, shapes and offsets: it travels in messages and files. `Parameters` is a
layout with two vectors, bound to the values of one model.
"""

from karp.parameters.layout import LARGEST, Layout
from karp.parameters.parameters import Parameters

__all__ = ["LARGEST", "Layout", "Parameters"]
