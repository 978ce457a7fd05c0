"""The goodput for a person: a table that grows line by line, and a picture."""

from collections.abc import Sequence
from typing import Any

from karp.simulate.goodput import MODES, RATES, RESTART_ALL, STEP_SECONDS, Band, share_up

COLORS = ("#e0a030", "#d1495b", "#1f5fa8", "#3a9a5a", "#777777")
NO_RATE = 0.003  # where no failures stand on the logarithmic axis


def text_of(band: Band) -> str:
    """Return what the band adds to the table: a cell, and what stands before the first and after the last of a line."""
    text = ""
    if band.mode == next(iter(MODES)) and band.rate == RATES[0]:
        rates = "".join(f"{rate or 'none':>16}" for rate in RATES)
        text = f"{band.workers:,} workers, failures of one of them in {STEP_SECONDS:g} s:\n{'':15}{rates}\n"
    if band.rate == RATES[0]:
        text += f"{band.mode:15}"
    lowest, highest = (f"{100 * share:.1f}" for share in (min(band.goodput), max(band.goodput)))
    text += f"{lowest if lowest == highest else f'{lowest} to {highest}':>16}"
    if band.rate == RATES[-1]:
        text += "\n\n" if band.mode == RESTART_ALL else "\n"
    return text


def draw(bands: Sequence[Band], figure: Any) -> None:
    """Draw a panel for each number of workers: the goodput at each rate, from the seeds' lowest to their highest."""
    numbers = list(dict.fromkeys(band.workers for band in bands))
    panels = figure.subplots(1, len(numbers), sharey=True, squeeze=False)[0]
    places = [rate or NO_RATE for rate in RATES]
    for axes, workers in zip(panels, numbers, strict=True):
        up = [100 * share_up(workers, rate) for rate in RATES]
        axes.plot(places, up, color="black", linestyle=":", linewidth=1, label="workers that are up")
        for mode, color in zip((*MODES, RESTART_ALL), COLORS, strict=True):
            line = [band for band in bands if (band.workers, band.mode) == (workers, mode)]
            axes.plot(places, [100 * band.mean for band in line], color=color, linewidth=1.8, label=mode)
            lows, highs = ([100 * end(band.goodput) for band in line] for end in (min, max))
            axes.fill_between(places, lows, highs, color=color, alpha=0.25, linewidth=0)
        axes.set(xscale="log", ylim=(0, 101), xlabel="failures in the time of a step")
        axes.set_xticks(places, [f"{rate:g}" if rate else "none" for rate in RATES])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{workers:,} workers", loc="left", fontsize=11)
    panels[0].set_ylabel("% of computation that reaches the weights")
    panels[-1].legend(frameon=False, fontsize=9)
