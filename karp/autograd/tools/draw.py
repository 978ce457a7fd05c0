"""Drawing the graph under a value as SVG, with the standard library alone.

There is one box for each operation with its result, and one for each leaf and constant; the computation runs from left
to right. Numbers show their data and gradient, arrays their shape, dtype and range. A frame holds the box of a fused
layer and those of its parameters. Its title is the module's name if names are given (`layers.0` for `layers.0.weight`),
else the layer's number.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from karp.autograd.tools.draw_layout import Layout, layered
from karp.autograd.tools.graph import walk
from karp.autograd.value import Value
from karp.errors import GraphError

_CHARACTER, _LINE, _PAD, _MARGIN = 6.7, 15.0, 8.0, 22.0
_LAYERS = ("linear", "layer_norm", "embedding")
_FILLS = {"node": "#eaf1fb", "leaf": "#e9f6ec", "constant": "#f4f4f4", "root": "#fdf0dc"}
_LINES = {"node": "#5b7fb5", "leaf": "#4f9a63", "constant": "#b0b0b0", "root": "#cf9a3c"}


class Drawing:
    """A picture as SVG text, which a notebook displays and `save` writes to a file."""

    def __init__(self, svg: str) -> None:
        self.svg = svg

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"Drawing({len(self.svg)} characters of SVG)"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the SVG to a file, over one that is there; raises OSError if that fails."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.svg)


def draw(
    value: Value,
    path: str | os.PathLike[str] | None = None,
    *,
    names: Mapping[str, Value] | Any = None,
    most: int = 1500,
) -> Drawing:
    """Draw the graph under `value`, with data and gradients, into `path` if given.

    `names` maps names to values, or is a module whose parameters have names. Gradients of arrays inside the graph show
    after `backward(retain_grad=True)`. Raises GraphError for a graph of more than `most` values, constants not counted,
    and if `value` is no Value; OSError if the file cannot be written.

    >>> x = Value(2.0)
    >>> picture = draw(x * x + 1.0, names={"x": x})
    >>> picture.svg.startswith("<svg")
    True
    """
    if not isinstance(value, Value):
        raise GraphError(f"draw takes a Value, the result of a computation, not {type(value).__name__}")
    if hasattr(names, "named_parameters"):
        names = dict(names.named_parameters())
    name_of = {id(named): name for name, named in (names or {}).items()}
    boxes, inputs = _make_boxes(value, name_of, most)
    _frame_layers(boxes, inputs, name_of)
    size = {key: box.size for key, box in boxes.items()}
    layout = layered(list(boxes), inputs, size)
    picture = Drawing(_svg(boxes, inputs, layout))
    if path is not None:
        picture.save(path)
    return picture


class _Box:
    """A box of the drawing: its kind, a title and lines under it."""

    def __init__(self, kind: str, title: str, lines: list[str], value: Value | None) -> None:
        self.kind, self.title, self.lines, self.value = kind, title, lines, value
        widest = max(len(line) for line in [title, *lines])
        self.own_size = self.size = (widest * _CHARACTER + 2 * _PAD, _LINE * (len(lines) + bool(title)) + _PAD)
        self.frame = ""
        self.stack: list[_Box] = []

    def enclose(self, frame: str, parameters: list[_Box]) -> None:
        """Put this box into a frame with those of its parameters: the first above it, the others below."""
        self.frame, self.stack = frame, [*parameters[:1], self, *parameters[1:]]
        width = max(*(box.own_size[0] for box in self.stack), len(frame) * _CHARACTER)
        self.size = (width + 2 * _PAD, sum(box.own_size[1] + _PAD for box in self.stack) + _PAD + _LINE)


def _make_boxes(root: Value, name_of: Mapping[int, str], most: int) -> tuple[dict[Any, _Box], dict[Any, list[Any]]]:
    """Return key -> box, inputs before the boxes that use them, and key -> keys of its inputs.

    Raises GraphError for more than `most` values.
    """
    values = list(itertools.islice(walk(root), most + 1))
    if len(values) > most:
        raise GraphError(f"draw: more than {most} values, too many to read; draw a smaller part or pass most=")
    boxes: dict[Any, _Box] = {}
    inputs: dict[Any, list[Any]] = {}
    for value in sorted(values, key=lambda value: (value.operation is not None, value.number)):
        sources: list[Any] = []
        settings = []
        rules = value.operation.gradients if value.operation is not None else ()
        for index, source in enumerate(value.inputs):
            if isinstance(source, Value):
                sources.append(id(source))
            elif isinstance(source, np.ndarray) or (isinstance(source, (float, int)) and index < len(rules)):
                key = (id(value), index)
                boxes[key] = _Box("constant", "", [_brief(source)], None)
                inputs[key] = []
                sources.append(key)
            elif isinstance(source, str):
                settings.append(source)
        kind = "root" if value is root else "node" if value.operation is not None else "leaf"
        boxes[id(value)] = _Box(kind, _title(value, name_of, settings), _lines(value), value)
        inputs[id(value)] = sources
    return boxes, inputs


def _title(value: Value, name_of: Mapping[int, str], settings: list[str]) -> str:
    name = name_of.get(id(value), "")
    if value.operation is None:
        return name
    label = " ".join([value.operation.label, *settings])
    return f"{name} = {label}" if name else label


def _lines(value: Value) -> list[str]:
    """Return the lines of a value's box: its number, or shape and range, and the same of its gradient."""
    lines = [_brief(value.data)] if value.ndim == 0 else [_shape(value.data), _range("data", value.data)]
    if value.grad is not None:
        lines.append(f"grad {_brief(value.grad)}" if value.ndim == 0 else _range("grad", value.grad))
    if value.ndim == 0:
        lines[0] = f"data {lines[0]}"
    return lines


def _brief(data: Any) -> str:
    if np.ndim(data) == 0:
        return f"{float(data):.4g}"
    return _shape(data)


def _shape(data: Any) -> str:
    return f"{' x '.join(map(str, data.shape))} {data.dtype}"


def _range(what: str, data: Any) -> str:
    return f"{what} {np.min(data):.3g} to {np.max(data):.3g}" if data.size else f"{what} empty"


def _frame_layers(boxes: dict[Any, _Box], inputs: dict[Any, list[Any]], name_of: Mapping[int, str]) -> None:
    """Put each fused layer into a frame with its parameters, except parameters that another operation uses too.

    Parameters in a frame are removed from `boxes` and `inputs`.
    """
    use_count: dict[Any, int] = {}
    for sources in inputs.values():
        for source in set(sources):
            use_count[source] = use_count.get(source, 0) + 1
    layer = 0
    for key in list(boxes):
        value = boxes[key].value
        if value is None or value.operation is None or value.operation.name not in _LAYERS:
            continue
        layer += 1
        candidates = inputs[key][:1] if value.operation.name == "embedding" else inputs[key][1:]
        own = [source for source in candidates if boxes[source].kind == "leaf" and use_count[source] == 1]
        if not own:
            continue
        prefixes = {name_of[source].rpartition(".")[0] for source in own if source in name_of} - {""}
        frame = prefixes.pop() if len(prefixes) == 1 else f"layer {layer}"
        boxes[key].enclose(frame, [boxes.pop(source) for source in own])
        for source in own:
            del inputs[source]
        inputs[key] = [source for source in inputs[key] if source not in own]


# --- SVG ------------------------------------------------------------------------------------------------------------


def _svg(boxes: Mapping[Any, _Box], inputs: Mapping[Any, list[Any]], layout: Layout) -> str:
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
        f' viewBox="{-_MARGIN:.0f} {-_MARGIN:.0f} {width:.0f} {height:.0f}" font-size="11"'
        ' font-family="Menlo, Consolas, DejaVu Sans Mono, monospace">',
        f'<rect x="{-_MARGIN:.0f}" y="{-_MARGIN:.0f}" width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    for key, sources in inputs.items():
        for source in dict.fromkeys(sources):
            parts.append(_edge(source, key, boxes, layout))
    parts += [_box_or_frame(box, layout.centre[key]) for key, box in boxes.items()]
    return "\n".join([*parts, "</svg>"])


def _box_or_frame(box: _Box, centre: tuple[float, float]) -> str:
    """Return the SVG of a box, or of a frame with the boxes of a layer."""
    (x, y), (w, h) = centre, box.size
    if not box.stack:
        return _box(box, x, y, w, h)
    left, top = x - w / 2, y - h / 2
    parts = [
        f'<rect x="{left:.1f}" y="{top + _LINE:.1f}" width="{w:.1f}" height="{h - _LINE:.1f}" rx="8" fill="#fafafa"'
        f' stroke="#999999" stroke-dasharray="4 3"/>',
        f'<text x="{left + 6:.1f}" y="{top + _LINE - 4:.1f}" fill="#666666">{escape(box.frame)}</text>',
    ]
    at = top + _LINE + _PAD
    for member in box.stack:
        height = member.own_size[1]
        parts.append(_box(member, x, at + height / 2, w - 2 * _PAD, height))
        at += height + _PAD
    return "\n".join(parts)


def _edge(source: Any, key: Any, boxes: Mapping[Any, _Box], layout: Layout) -> str:
    """Return the SVG of an arrow's path from a source's box to that of the operation."""
    x, y = layout.centre[source]
    points = [(x + boxes[source].size[0] / 2, y), *layout.route[source, key]]
    x, y = layout.centre[key]
    points.append((x - boxes[key].size[0] / 2, y))
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        half = (x1 - x0) / 2
        path.append(f"C{x0 + half:.1f} {y0:.1f} {x1 - half:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
    return f'<path d="{" ".join(path)}" fill="none" stroke="#888888"/>'


def _box(box: _Box, x: float, y: float, w: float, h: float) -> str:
    """Return the SVG of a box with its title and lines, centred at x, y."""
    left, top = x - w / 2, y - h / 2
    parts = [
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{w:.1f}" height="{h:.1f}" rx="5" fill="{_FILLS[box.kind]}"'
        f' stroke="{_LINES[box.kind]}"/>'
    ]
    at = top + _LINE - 1
    if box.title:
        title = escape(box.title)
        parts.append(f'<text x="{x:.1f}" y="{at:.1f}" text-anchor="middle" font-weight="bold">{title}</text>')
        at += _LINE
    for line in box.lines:
        parts.append(f'<text x="{x:.1f}" y="{at:.1f}" text-anchor="middle" fill="#333333">{escape(line)}</text>')
        at += _LINE
    return "\n".join(parts)
