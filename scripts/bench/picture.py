"""The table as a picture: a panel per case, a bar per contestant, a whisker from the lowest round to the highest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.table import Figure, short

OWN, YARDSTICK, LIMIT, OTHER = "#d1495b", "#30638e", "#d9e4ee", "#a9b4c2"  # karp, its measure, the limit, others
BAR, PANEL, MARGINS = 0.27, 0.62, 1.0  # inches: of a bar, around the bars of a panel, around the panels


@dataclass(frozen=True)
class Bar:
    """One contestant in one panel."""

    name: str
    figure: Figure
    note: str  # stands behind the figure
    color: str


def draw(path: str, title: str, below: str, panels: Sequence[tuple[str, Sequence[Bar]]]) -> bool:
    """Write `path`, as what its ending says; False, with a word about it, if there is no matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print("karp: no picture without matplotlib: use --install, or pip install 'karp[bench]'", file=sys.stderr)
        return False
    matplotlib.use("agg")
    from matplotlib import pyplot

    columns = min(2, len(panels))
    lines = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [max(len(bars) for _, bars in line) for line in lines]
    height = BAR * sum(heights) + PANEL * len(lines) + MARGINS
    with pyplot.rc_context({"font.size": 9, "svg.fonttype": "none"}):
        figure, grid = pyplot.subplots(
            len(lines), columns, squeeze=False, figsize=(5.5 * columns, height), height_ratios=heights
        )
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (name, bars) in zip(grid.flat, panels, strict=False):
            _panel(axes, name, bars)
        figure.text(0.015, 1 - 0.28 / height, title, fontsize=13, fontweight="bold", va="center")
        figure.text(0.015, 0.28 / height, below, fontsize=7.5, color="#555555", va="center")
        figure.tight_layout(rect=(0, 0.45 / height, 1, 1 - 0.45 / height), w_pad=3)
        figure.savefig(path, dpi=150)
        pyplot.close(figure)
    return True


def _panel(axes: Any, name: str, bars: Sequence[Bar]) -> None:
    axes.set_axis_on()
    bars = sorted(bars, key=lambda bar: bar.figure.middle)
    places = range(len(bars))
    most = max(bar.figure.high for bar in bars)
    axes.barh(places, [bar.figure.middle for bar in bars], color=[bar.color for bar in bars], height=0.72)
    for place, bar in zip(places, bars, strict=True):
        ends = [bar.figure.low, bar.figure.high]
        axes.plot(ends, [place, place], color="#222222", linewidth=0.9, marker="|", markersize=5)
        label = f"{short(bar.figure.middle)}  {bar.note}"
        axes.text(bar.figure.high + 0.015 * most, place, label, va="center", fontsize=8)
    axes.set_yticks(places, [bar.name for bar in bars])
    for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
        label.set_fontweight("bold" if bar.color == OWN else "normal")
    axes.set_xlim(0, 1.28 * most)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_title(name, loc="left", fontsize=9.5)
