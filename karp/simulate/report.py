"""The outcome of a study for a person or a program: lines of text, a curve of bars, JSON, a picture."""

import io
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from karp.errors import MissingError, SettingError
from karp.record import files
from karp.simulate.study import Outcome

CURVE_LINES = 16  # the most lines of the curve in a terminal
BAR_COLUMNS = 48
HISTOGRAM_BARS = 40  # the most bars of the staleness in a picture
BLUE, GREY = "#1f5fa8", "#9a9a9a"


def summary_lines(outcome: Outcome) -> list[str]:
    """Return the outcome in words, one fact to a line."""
    study, figures = outcome.study, outcome.figures
    slow = f", {figures['stragglers']} of them {study.factor:g} times as slow" if figures["stragglers"] else ""
    steps, seconds = figures["steps"], figures["seconds"]
    if outcome.reached is None:
        reached = f"not reached in {steps} steps"
    else:
        reached = f"reached in {outcome.reached[0]:.2f} s, {outcome.reached[1]} steps"
    staleness = figures["staleness"]
    contributions = max(1, sum(staleness.values()))
    mean = sum(age * number for age, number in staleness.items()) / contributions
    up, down = figures["messages"]["up"], figures["messages"]["down"]
    bytes_up, bytes_down = (format_bytes(figures["bytes"][direction]) for direction in ("up", "down"))
    lost, doubled, crashes = figures["lost"], figures["doubled"], figures["crashes"]
    return [
        f"workers       {study.workers:,}{slow}; {study.shards_of_step:,} shards of {study.rows} samples",
        f"loss          {outcome.curve[0][2]:.4g} to {figures['loss']:.4g} (lowest {outcome.lowest:.4g})",
        f"target        {outcome.target:.4g}: {reached}",
        f"time          {seconds:.2f} s for {steps} steps, {seconds / max(1, steps):.3g} s each",
        f"staleness     {mean:.2f} on average, {max(staleness)} at most",
        f"messages      {up:,} up, {down:,} down: {(up + down) / max(1, steps):,.0f} per step",
        f"bytes         {bytes_up} up, {bytes_down} down",
        f"leased again  {figures['leased_again']:,} shards; {figures['dropped']:,} came twice or too late",
        f"faults        {lost:,} messages lost, {doubled:,} doubled, {crashes:,} crashes",
    ]


def format_bytes(count: float) -> str:
    """Return a number of bytes in words.

    >>> format_bytes(512), format_bytes(2_500_000), format_bytes(3e15)
    ('512 B', '2.5 MB', '3e+03 TB')
    """
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if count < 1000:
            break
        count, unit = count / 1000, larger
    return f"{count:.3g} {unit}"


def curve_lines(outcome: Outcome) -> list[str]:
    """Return the curve as lines of a terminal: bars of the loss above the lowest possible, on a logarithmic scale.

    Returns [] if the loss did not fall, or the target is not above the lowest loss.
    """
    curve = outcome.curve
    indices = [round(line * (len(curve) - 1) / (CURVE_LINES - 1)) for line in range(CURVE_LINES)]
    points = [curve[index] for index in indices] if len(curve) > CURVE_LINES else curve
    floor = min(outcome.target, curve[-1][2]) - outcome.lowest
    top = curve[0][2] - outcome.lowest
    if floor <= 0.0 or top <= floor:
        return []
    lines = ["  seconds  step  loss"]
    for seconds, step, loss in points:
        excess = max(loss - outcome.lowest, floor)
        share = min(1.0, math.log(excess / floor) / math.log(top / floor)) if math.isfinite(excess) else 1.0
        lines.append(f"{seconds:9.2f} {step:5d}  {loss:<9.4g} {'█' * max(1, round(share * BAR_COLUMNS))}")
    return lines


def write_json(outcome: dict[str, Any], path: str) -> None:
    """Write the outcome of a study as JSON; raises SettingError for a path that cannot be written."""
    try:
        files.write_json(Path(path), outcome)
    except OSError as error:
        raise SettingError(f"--json {path} cannot be written: {files.reason(error)}") from None


def draw_picture(outcome: Outcome, path: str) -> None:
    """Draw the curve, and beside it the staleness or the seconds of each step.

    Raises MissingError without matplotlib, SettingError for a path that cannot be written.
    """
    figure = new_figure()
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _draw_curve(outcome, left)
    if max(outcome.figures["staleness"]) > 0:
        _draw_staleness(outcome, right)
    else:
        _draw_step_seconds(outcome, right)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    write_picture(figure, path)


def new_figure() -> Any:
    """Return an empty figure of matplotlib's; raises MissingError without it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingError("--picture needs matplotlib: pip install 'karp[plot]', or leave it out") from None
    return Figure(figsize=(10, 4.2), layout="constrained")


def write_picture(figure: Any, path: str) -> None:
    """Write a figure as what the path's ending says; raises SettingError for a path that cannot be written."""
    drawn = io.BytesIO()
    try:
        figure.savefig(drawn, dpi=140, format=Path(path).suffix[1:] or None)
        files.write(Path(path), drawn.getvalue())
    except (OSError, ValueError) as error:
        why = files.reason(error) if isinstance(error, OSError) else error
        raise SettingError(f"--picture {path} cannot be written: {why}") from None


def _draw_curve(outcome: Outcome, axes: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    seconds = [seconds for seconds, _, _ in outcome.curve]
    axes.plot(seconds, [loss - outcome.lowest for _, _, loss in outcome.curve], color=BLUE, linewidth=2)
    target = outcome.target - outcome.lowest
    axes.axhline(target, color=GREY, linestyle="--", linewidth=1)
    axes.annotate("target", (0.0, target), (0, 4), textcoords="offset points", color=GREY)
    axes.set(yscale="log", xlabel="seconds (virtual)", ylabel="loss above the lowest")
    axes.yaxis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(_title(outcome), loc="left", fontsize=11)


def _title(outcome: Outcome) -> str:
    study, stragglers = outcome.study, outcome.figures["stragglers"]
    bound = "asynchronous" if study.staleness is None else f"staleness {study.staleness}"
    slow = f", {stragglers:,} slow" if stragglers else ""
    return f"{study.workers:,} workers{slow}, {bound}"


def _draw_staleness(outcome: Outcome, axes: Any) -> None:
    """Draw a histogram of the staleness of all contributions."""
    staleness = outcome.figures["staleness"]
    oldest, contributions = max(staleness), sum(staleness.values())
    ages_per_bar = 1 + oldest // HISTOGRAM_BARS
    bars: Counter[int] = Counter()
    for age, number in staleness.items():
        bars[age // ages_per_bar] += number
    centres = [ages_per_bar * (bar + 0.5) - 0.5 for bar in bars]
    shares = [100 * number / contributions for number in bars.values()]
    axes.bar(centres, shares, width=0.85 * ages_per_bar, color=BLUE)
    unit = "updates" if ages_per_bar > 1 else "steps"
    axes.set(xlabel=f"staleness, in {unit}", ylabel="% of contributions")
    if oldest <= 20:
        axes.set_xticks(range(oldest + 1))


def _draw_step_seconds(outcome: Outcome, axes: Any) -> None:
    """Draw how long each step took."""
    times = [seconds for seconds, _, _ in outcome.curve]
    durations = [after - before for before, after in pairwise(times)]
    axes.plot(range(1, len(times)), durations, color=BLUE, linewidth=1.5)
    axes.set(xlabel="step", ylabel="seconds of the step", ylim=(0, None))
