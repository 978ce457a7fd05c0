"""The comparison as a picture: a line per contestant, a dot per set, at the ratio of its error to karp's."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.picture import LIMIT, OTHER, OWN, YARDSTICK
from bench.tables.comparing import Comparison

LINE, MARGINS = 0.42, 1.5  # inches: of a contestant, around them
TICKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)


def draw(path: str, title: str, below: str, comparisons: Sequence[Comparison]) -> bool:
    """Write `path`, as what its ending says; False, with a word about it, if there is no matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print("karp: no picture without matplotlib: use --install, or pip install 'karp[bench]'", file=sys.stderr)
        return False
    matplotlib.use("agg")
    from matplotlib import pyplot

    lines = sorted(comparisons, key=lambda one: one.ratio)  # from below: the best of the others stands above
    height = LINE * len(lines) + MARGINS
    with pyplot.rc_context({"font.size": 9, "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(9, height))
        axes.axvline(1.0, color=OWN, linewidth=1.4)
        for place, line in enumerate(lines):
            ratios = [1 / one.ratio for one in line.sets]
            axes.axhline(place, color=LIMIT, linewidth=0.8, zorder=0)
            axes.scatter(ratios, [place] * len(ratios), s=22, color=OTHER, alpha=0.8, linewidths=0)
            axes.scatter([1 / line.ratio], [place], s=64, marker="D", color=YARDSTICK, zorder=3)
            note = f"{1 / line.ratio:.2f}   {line.first} is better on {line.better} of {len(line.sets)}"
            axes.text(1.01, place, note, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
        axes.set_yticks(range(len(lines)), [line.second for line in lines])
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.set_xticks([tick for tick in TICKS if low <= tick <= high])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set_xlim(low, high)
        axes.tick_params(length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        figure.text(0.015, 1 - 0.28 / height, title, fontsize=13, fontweight="bold", va="center")
        figure.text(0.015, 0.3 / height, below, fontsize=7.5, color="#555555", va="center")
        figure.tight_layout(rect=(0, 0.55 / height, 0.99, 1 - 0.5 / height))
        figure.savefig(path, dpi=150)
        pyplot.close(figure)
    return True
