"""Tables for the tests: cells in batches of any size, without files."""

from collections.abc import Collection, Iterator, Sequence

from karp.tabular.columns.cells import Batch, Cells, Texts


def text_cells(columns: dict[str, Sequence[str | None]], size: int = 1000) -> Cells:
    """Return columns of texts as cells, in batches of `size` rows."""
    rows = len(next(iter(columns.values())))

    def batches(only: Collection[str] | None) -> Iterator[Batch]:
        names = tuple(name for name in columns if only is None or name in only)
        for start in range(0, rows, size):
            part = {name: Texts(list(columns[name][start : start + size])) for name in names}
            count = len(columns[names[0]][start : start + size])
            yield Batch(names, count, part.__getitem__, lambda row, start=start: f"row {start + row}")  # type: ignore[misc]

    return Cells("t", tuple(columns), rows, batches)
