"""The random numbers of a simulated run, all of them drawn from one seed."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

BLOCK = 512  # Numbers are drawn in blocks: one at a time they cost ten times as much.
Option = TypeVar("Option")


class Randomness:
    """Draw random numbers in the order in which a simulation asks for them.

    >>> first, second = Randomness(7, 1), Randomness(7, 1)
    >>> [first.integer(6) for _ in range(9)] == [second.integer(6) for _ in range(9)]
    True
    """

    def __init__(self, *seed: int) -> None:
        self.generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        self._block: list[float] = []

    def random(self) -> float:
        """Draw a number from [0, 1)."""
        if not self._block:
            self._block = self.generator.random(BLOCK).tolist()
        return self._block.pop()

    def bernoulli(self, probability: float) -> bool:
        """Return True with this probability; a probability of 0 uses up no number."""
        return probability > 0.0 and self.random() < probability

    def uniform(self, low: float, high: float) -> float:
        """Draw a number from [low, high)."""
        return low + (high - low) * self.random()

    def integer(self, count: int) -> int:
        """Draw a whole number from 0 to count - 1."""
        return int(self.random() * count)

    def choice(self, options: Sequence[Option]) -> Option:
        """Draw one of the options, each with the same probability."""
        return options[self.integer(len(options))]

    def exponential(self, mean: float) -> float:
        """Draw from the exponential distribution with this mean."""
        return -mean * math.log(1.0 - self.random())

    def normal(self) -> float:
        """Draw from the normal distribution with mean 0 and standard deviation 1."""
        return math.sqrt(-2.0 * math.log(1.0 - self.random())) * math.cos(2.0 * math.pi * self.random())
