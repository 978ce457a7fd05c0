"""The layout of a drawing's boxes: a layered layout, left to right.

1. A node's column is one more than the largest of its inputs; a leaf's is the one before its first use.
2. An edge over several columns passes through an empty slot in each column between, so that it runs through no box.
3. Within a column, keys are ordered by the average position of their neighbours, in sweeps forward and backward, which
   leaves few crossings (Sugiyama, Tagawa and Toda, 1981).
4. Each key is moved towards the average height of its neighbours, as far as the order and the sizes allow.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

Key = Hashable
GAP_X, GAP_Y = 46.0, 14.0


class Layout:
    """The result of a layout: the `centre` of every box, and the points that each edge passes through."""

    def __init__(self) -> None:
        self.centre: dict[Key, tuple[float, float]] = {}
        self.route: dict[tuple[Key, Key], list[tuple[float, float]]] = {}
        self.width = self.height = 0.0


def layered(
    order: Sequence[Key], inputs: Mapping[Key, Sequence[Key]], size: Mapping[Key, tuple[float, float]]
) -> Layout:
    """Lay out the graph `inputs` (key -> keys of its inputs); `order` has inputs first, `size` is (width, height)."""
    rank = _ranks(order, inputs)
    columns: list[list[Key]] = [[] for _ in range(max(rank.values()) + 1)]
    for key in order:
        columns[rank[key]].append(key)
    left: dict[Key, list[Key]] = {key: [] for key in order}  # neighbours in the column before
    chains: dict[tuple[Key, Key], list[Key]] = {}
    for key in order:
        for source in dict.fromkeys(inputs[key]):
            chains[source, key] = _chain(source, key, rank, columns, left)
    right: dict[Key, list[Key]] = {key: [] for key in left}
    for key, sources in left.items():
        for source in sources:
            right[source].append(key)
    _sort_columns(columns, left, right)
    height = {key: size[key][1] if key in size else 2.0 for key in left}
    y = _heights(columns, left, right, height)
    return _place(columns, chains, size, y)


def _ranks(order: Sequence[Key], inputs: Mapping[Key, Sequence[Key]]) -> dict[Key, int]:
    """Return each key's column: right of all its inputs; a key without inputs is next to its first use."""
    rank: dict[Key, int] = {}
    first_use: dict[Key, int] = {}
    for key in order:
        rank[key] = max((rank[source] + 1 for source in inputs[key]), default=0)
        for source in inputs[key]:
            first_use[source] = min(first_use.get(source, rank[key]), rank[key])
    for key in order:
        if not inputs[key] and key in first_use:
            rank[key] = first_use[key] - 1
    return rank


def _chain(
    source: Key, key: Key, rank: Mapping[Key, int], columns: list[list[Key]], left: dict[Key, list[Key]]
) -> list[Key]:
    """Connect two keys through an empty slot in every column between them, and return the slots."""
    slots: list[Key] = []
    before: Key = source
    for column in range(rank[source] + 1, rank[key]):
        slot: Key = ("through", source, key, column)
        columns[column].append(slot)
        left[slot] = [before]
        slots.append(slot)
        before = slot
    left[key].append(before)
    return slots


def _sort_columns(columns: list[list[Key]], left: Mapping[Key, list[Key]], right: Mapping[Key, list[Key]]) -> None:
    """Order each column by the mean places of the keys' neighbours, so that fewer edges cross."""
    at = {key: float(index) for column in columns for index, key in enumerate(column)}
    for sweep in range(8):
        forward = sweep % 2 == 0
        neighbours = left if forward else right
        for column in columns if forward else columns[::-1]:
            mean = {key: _mean(at, neighbours[key], at[key]) for key in column}
            column.sort(key=mean.__getitem__)
            for index, key in enumerate(column):
                at[key] = float(index)


def _mean(values: Mapping[Key, float], keys: Sequence[Key], otherwise: float) -> float:
    """Return the mean of the values of these keys; `otherwise` if there are none."""
    return sum(values[key] for key in keys) / len(keys) if keys else otherwise


def _heights(
    columns: list[list[Key]], left: Mapping[Key, list[Key]], right: Mapping[Key, list[Key]], height: Mapping[Key, float]
) -> dict[Key, float]:
    """Return the y of each key's centre, close to the mean of its neighbours' and without overlap."""
    y: dict[Key, float] = {}
    for column in columns:
        _stack(column, dict.fromkeys(column, 0.0), height, y)
    for sweep in range(12):
        for column in columns if sweep % 2 else columns[::-1]:
            wish = {key: _mean(y, [*left[key], *right[key]], y[key]) for key in column}
            _stack(column, wish, height, y)
    return y


def _stack(column: list[Key], wish: Mapping[Key, float], height: Mapping[Key, float], y: dict[Key, float]) -> None:
    """Set heights as close as possible to the wishes, in order and without overlap: blocks that collide move as one."""
    blocks: list[tuple[float, float, list[tuple[Key, float]]]] = []  # (sum of wishes for its top, top offset, members)
    for key in column:
        members = [(key, 0.0)]
        total = wish[key]
        while blocks:
            above, _, others = blocks[-1]
            last_key, last_offset = others[-1]
            offset = last_offset + (height[last_key] + height[members[0][0]]) / 2 + GAP_Y
            if above / len(others) + offset <= total / len(members):
                break
            blocks.pop()
            total = above + total - offset * len(members)
            members = others + [(member, offset + by) for member, by in members]
        blocks.append((total, 0.0, members))
    for total, _, members in blocks:
        for key, offset in members:
            y[key] = total / len(members) + offset


def _place(
    columns: list[list[Key]], chains: Mapping[tuple[Key, Key], list[Key]], size: Mapping[Key, tuple[float, float]],
    y: Mapping[Key, float],
) -> Layout:
    """Return the layout: the columns side by side, with the edges' routes through the empty slots."""
    layout = Layout()
    top = min(y[key] - (size[key][1] / 2 if key in size else 1.0) for column in columns for key in column)
    x = 0.0
    points: dict[Key, tuple[float, float]] = {}
    for column in columns:
        width = max((size[key][0] for key in column if key in size), default=0.0)
        for key in column:
            points[key] = (x + width / 2, y[key] - top)
        x += width + GAP_X
    layout.centre = {key: points[key] for key in size}
    layout.route = {edge: [points[slot] for slot in slots] for edge, slots in chains.items()}
    layout.width = x - GAP_X
    layout.height = max(points[key][1] + size[key][1] / 2 for key in size)
    return layout
