"""When counting begins and ends: not with the first step, as caches and processors warm up, and all must have come."""

from __future__ import annotations

import time
from typing import Any

WARM_SECONDS = 0.3


class Clock:
    """Asked after every step: `over(step)`."""

    CHECKED = 9  # the step whose loss everybody tells

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begin = self.until = 0.0  # of counting; set at the first step
        self.first = self.last = -1  # steps
        self.end = 0.0

    def over(self, step: int) -> bool:
        """Whether the time is up, now that this step is done."""
        now = time.perf_counter()
        if self.first >= 0:
            self.last, self.end = step, now
            return now >= self.until
        if not self.until:
            self.until = now + WARM_SECONDS
        elif now >= self.until and step > self.CHECKED:
            self.first, self.begin, self.until = step, now, now + self.seconds
        return False

    def report(self, samples: int, losses: dict[int, float]) -> dict[str, Any]:
        """What one worker says, who uses so many samples a step: {samples_per_s, losses: {shard: of step CHECKED}}."""
        steps = self.last - self.first if self.first >= 0 else 0
        return {"samples_per_s": steps * samples / (self.end - self.begin) if steps else 0.0, "losses": losses}
