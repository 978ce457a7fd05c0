"""All that is left to chance in a simulated cluster, from one seed."""

import math

import numpy as np

BLOCK = 512  # numbers drawn at a time: one by one they cost ten times as much


class Chance:
    """Random numbers in the order in which the simulation asks for them.

    >>> one, other = Chance(7, 1), Chance(7, 1)
    >>> [one.below(6) for _ in range(9)] == [other.below(6) for _ in range(9)]
    True
    """

    def __init__(self, *seed: int) -> None:
        self.generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        self._drawn: list[float] = []

    def uniform(self) -> float:
        """At least 0, below 1."""
        if not self._drawn:
            self._drawn = self.generator.random(BLOCK).tolist()
        return self._drawn.pop()

    def happens(self, probability: float) -> bool:
        return probability > 0.0 and self.uniform() < probability

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.uniform()

    def below(self, count: int) -> int:
        """A whole number from 0 to count-1."""
        return int(self.uniform() * count)

    def exponential(self, mean: float) -> float:
        return -mean * math.log(1.0 - self.uniform())

    def normal(self) -> float:
        return math.sqrt(-2.0 * math.log(1.0 - self.uniform())) * math.cos(2.0 * math.pi * self.uniform())
