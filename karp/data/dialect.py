"""A dialect of CSV: where records and their cells begin and end.

Theory of operation. A record is one line, or several where a quoted cell runs over line ends (RFC 4180). Cells are
separated by the delimiter; one whose first character is '"', blanks aside, ends at the next '"', and '""' inside it
is a '"'. Blanks around a cell, in quotes or not, do not count, and a '"' elsewhere is text.

NumPy's parser understands most of this, but it knows no blank before a quote and takes text after one. So a record
with quotes is handed to it only when both readings are the same, and is written anew otherwise: the two passes of
`reading.py` always see the same cells. Patterns are possessive, so their time is linear in the record.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from karp.data.text_file import NumberedLines, TextFile
from karp.errors import DataError

Records = Generator[tuple[int, str], None, None]  # a record as (number of its first line, its text with the line end)
Blocks = Generator[tuple[Sequence[int], str], None, None]  # the same of many records

_DELIMITERS = ";\t|, "  # the delimiters that are suggested, the most likely first
_LONGEST = 2**17  # characters of a cell over several lines: in a longer one a quote has been left open


@dataclass(frozen=True, slots=True)
class Dialect:
    """The rules by which text is cut into records, and records into cells at `delimiter`.

    Lines that begin with `comments` are no records. If it is None, only lines above the first record are comments, if
    they begin with '#'. `detected` says that nobody has chosen the delimiter, so advice is about the file alone.

    >>> Dialect(",").split('1, "a, b" , 5", ""')
    ['1', 'a, b', '5"', '']
    """

    delimiter: str
    comments: str | None = None
    detected: bool = False
    _plain: re.Pattern[str] = field(init=False, repr=False)  # matches a record that NumPy's parser reads correctly
    # These match a record with a delimiter before it: a cell and its delimiter, all cells, a cell that is not closed.
    _cell: re.Pattern[str] = field(init=False, repr=False)
    _cells: re.Pattern[str] = field(init=False, repr=False)
    _open: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        mark = re.escape(self.delimiter)
        # No possessive repetition has alternatives: up to Python 3.11.4 that loses matches (gh-106052).
        blank, inside = rf"[^\S\n{mark}]*+", '[^"]*+(?:""[^"]*+)*+'
        quoted, bare = f'"({inside})"', rf'((?!{blank}")[^{mark}\n]*+)'
        cell = rf"{mark}(?:{blank}{quoted}{blank}(?={mark}|$)|{bare})"
        put = object.__setattr__  # as the dataclass is frozen
        put(self, "_plain", re.compile(rf"(?:{quoted}|{bare})(?:{mark}(?:{quoted}|{bare}))*\n?"))
        put(self, "_cell", re.compile(cell))
        put(self, "_cells", re.compile(rf"(?:{cell})*"))
        put(self, "_open", re.compile(rf'{mark}{blank}"{inside}\Z'))

    @property
    def comment(self) -> str:
        """The mark with which a comment begins."""
        return "#" if self.comments is None else self.comments

    def split(self, record: str) -> list[str]:
        """Return the cells of a record, without the quotes and the blanks around them."""
        if '"' not in record:
            return [cell.strip() for cell in record.split(self.delimiter)]
        cells = self._cell.findall(self.delimiter + record)
        return [(quoted.replace('""', '"') or bare).strip() for quoted, bare in cells]

    def records(self, file: TextFile) -> Records:
        """Yield the records that are neither comments nor blank; the first names the columns.

        Raises DataError for quotes that do not match, text that is not UTF-8, and a file that cannot be read.
        """
        with closing(file.lines()) as lines:
            yield from self._records(file, lines, lines, header=True)

    def blocks(self, file: TextFile) -> Blocks:
        """Yield the record that names the columns, then the others, many at a time, as `records` has them.

        A block without blank lines and quotes, or with quotes around whole cells alone, is its own records, so it is
        looked at as a whole, in a tenth of the time. Raises what `records` raises.
        """
        header = True
        left: deque[tuple[int, str]] = deque()  # the lines of a block that are not yet read

        def lines() -> NumberedLines:
            while left:
                yield left.popleft()

        def following() -> NumberedLines:
            while True:
                if not left:
                    left.extend(line for block in islice(blocks, 1) for line in _lines_of(*block))
                if not left:
                    return
                yield left.popleft()

        with closing(file.blocks()) as blocks:
            for number, block in blocks:
                if not header and self._is_plain(block):
                    yield range(number, number + block.count("\n") + (not block.endswith("\n"))), block
                    continue
                left.extend(_lines_of(number, block))
                records = list(self._records(file, lines(), following(), header))
                if header and records:
                    yield [records[0][0]], records[0][1]
                    header = False
                    del records[0]
                if records:
                    yield [number for number, _ in records], "".join(record for _, record in records)

    def _is_plain(self, block: str) -> bool:
        """Return whether each line of a block is certainly a record as it stands."""
        if block[0] in "\n " or "\n\n" in block or "\n " in block or self.comments is not None:
            return False
        if block.isascii() and '"' not in block:
            return True
        try:
            encoded = block.encode()
        except UnicodeEncodeError:  # a byte that is not UTF-8; the line will be named
            return False
        return '"' not in block or self._has_plain_quotes(encoded)

    def _has_plain_quotes(self, block: bytes) -> bool:
        """Return whether each quote of a block of lines opens a cell or closes it, and no cell has a line end in it."""
        codes = np.frombuffer(block, np.uint8)
        quotes = np.flatnonzero(codes == ord('"'))
        if len(quotes) % 2 or len(self.delimiter) != 1 or not self.delimiter.isascii():
            return False
        opened, closed = quotes[::2], quotes[1::2]
        edges = np.zeros(256, np.bool_)
        edges[[ord("\n"), ord(self.delimiter)]] = True
        before, after = codes[opened[opened > 0] - 1], codes[closed[closed < len(codes) - 1] + 1]
        ends = np.flatnonzero(codes == ord("\n"))
        whole = not (np.searchsorted(quotes, ends) % 2).any()  # no line ends within quotes
        return bool(whole and edges[before].all() and edges[after].all())

    def _records(
        self, file: TextFile, lines: Iterable[tuple[int, str]], following: NumberedLines, header: bool
    ) -> Records:
        """Yield the records that begin in `lines`; the lines in which they go on come from `following`."""
        mark, everywhere = self.comment, self.comments is not None
        for number, line in lines:
            if (header or everywhere) and line.startswith(mark):
                continue
            # A line of tabs is not blank: they may delimit empty cells.
            if line.isspace() and not line.strip(" \n"):
                continue
            if not line.isascii():
                file.check_utf8(number, line)
            if '"' in line and not self._plain.fullmatch(line):
                line = self._complete(file, number, line, following, header)
            yield number, line
            header = False

    def suggest_delimiter(self, record: str) -> str:
        """Return the advice for a record whose cells another delimiter seems to separate; "" where none does."""
        mark = next((mark for mark in _DELIMITERS if mark != self.delimiter and Dialect(mark).separates(record)), None)
        if mark == " " and "  " in record.strip():
            return "put one delimiter in the place of each run of blanks"
        if not mark:
            return ""
        return f"put {self.delimiter!r} in the place of each {mark!r}" if self.detected else f"pass delimiter={mark!r}"

    def separates(self, record: str) -> bool:
        """Return whether the delimiter cuts a record into several cells that are well formed."""
        record = record.strip("\n")
        formed = self.delimiter in record and self._end(self.delimiter + record) == len(record) + 1
        return formed and len(self.split(record)) > 1

    def _end(self, text: str, start: int = 0) -> int:
        """Return the offset of the first cell that is not well formed; the text is a record behind a delimiter."""
        match = self._cells.match(text, start)
        return match.end() if match else start

    def _complete(self, file: TextFile, number: int, record: str, lines: NumberedLines, header: bool) -> str:
        """Complete a record from the next lines if it goes on there, and return it in a form that NumPy's parser reads.

        Raises DataError if its quotes do not match.
        """
        text = self.delimiter + record
        end = self._end(text)
        while end < len(text) and text[end:] != "\n":
            more = self._more(file, lines) if self._open.match(text, end) else None
            if not more or len(text) - end > _LONGEST:
                where = f"{file.name}, line {number}"
                if header and (other := self.suggest_delimiter(text[1:])):
                    raise DataError(f"{where}: its cells are not separated by {self.delimiter!r}: {other}")
                column = len(self._cell.findall(text[:end])) + 1
                fault = "is not closed" if more is not None else "has text behind its closing quote"
                raise DataError(
                    f"{where}: quotes do not match: the cell that opens with one in column {column} {fault}: close it "
                    "where it ends, and double each quote inside it"
                )
            text += more
            end = self._end(text, end)
        record = text[1:]
        if self._plain.fullmatch(record):
            return record
        return self.delimiter.join('"' + cell.replace('"', '""') + '"' for cell in self.split(record)) + "\n"

    def _more(self, file: TextFile, lines: NumberedLines) -> str:
        """Read the lines up to one that closes a quoted cell; "" at the end of the file."""
        more: list[str] = []
        length = 0
        for number, line in lines:
            if not line.isascii():
                file.check_utf8(number, line)
            more.append(line)
            length += len(line)
            if '"' in line.replace('""', "") or length > _LONGEST:
                break
        return "".join(more)


def detect_delimiter(file: TextFile) -> str:
    """Return what separates the cells of the first line that is no comment: a comma, else a semicolon, a tab or '|'.

    Blanks are no delimiters, as they stand in names, too. Returns a comma where none of the four separates cells.
    """
    with closing(file.lines()) as lines:
        first = next((line for _, line in lines if line.strip() and not line.startswith("#")), "")
    return next((mark for mark in ",;\t|" if Dialect(mark).separates(first)), ",")


def _lines_of(number: int, block: str) -> Iterable[tuple[int, str]]:
    """Return the lines of a block with their numbers; their ends are line feeds and nothing else."""
    lines = block.split("\n")
    last = lines.pop()
    ended = [line + "\n" for line in lines] + ([last] if last else [])
    return enumerate(ended, number)
