"""The table of operations, by family; `TABLE` maps each operation's name to its row."""

from __future__ import annotations

from karp.autograd.operation import Operation
from karp.autograd.operations import elementwise, fused, products, reductions, scaled, shapes

TABLE: dict[str, Operation] = {
    row.name: row
    for family in (elementwise, reductions, shapes, products, scaled, fused)
    for row in vars(family).values()
    if isinstance(row, Operation)
}
