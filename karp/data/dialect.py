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
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field

from karp.data.text_file import NumberedLines, TextFile
from karp.errors import DataError

Records = Generator[tuple[int, str], None, None]  # a record as (number of its first line, its text with the line end)

_DELIMITERS = ";\t|, "  # the delimiters that are suggested, the most likely first
_LONGEST = 2**17  # characters of a cell over several lines: in a longer one a quote has been left open


@dataclass(frozen=True, slots=True)
class Dialect:
    """The rules by which text is cut into records, and records into cells at `delimiter`.

    Lines that begin with `comments` are no records. If it is None, only lines with '#' above the first record are none.

    >>> Dialect(",").split('1, "a, b" , 5", ""')
    ['1', 'a, b', '5"', '']
    """

    delimiter: str
    comments: str | None = None
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
        """Return the cells of a record."""
        if '"' not in record:
            return [cell.strip() for cell in record.split(self.delimiter)]
        cells = self._cell.findall(self.delimiter + record)
        return [(quoted.replace('""', '"') or bare).strip() for quoted, bare in cells]

    def records(self, file: TextFile) -> Records:
        """Yield the records that are neither comments nor blank; the first names the columns."""
        mark, everywhere = self.comment, self.comments is not None
        header = True
        with closing(file.lines()) as lines:
            for number, line in lines:
                if (header or everywhere) and line.startswith(mark):
                    continue
                # A line of tabs is not blank: they may delimit empty cells.
                if line.isspace() and not line.strip(" \n"):
                    continue
                if not line.isascii():
                    file.check_utf8(number, line)
                if '"' in line and not self._plain.fullmatch(line):
                    line = self._complete(file, number, line, lines, header)
                yield number, line
                header = False

    def suggest_delimiter(self, record: str) -> str:
        """Return the advice for a record whose cells another delimiter seems to separate; "" where none does."""
        record = record.strip("\n")
        for mark in _DELIMITERS.replace(self.delimiter, ""):
            dialect = Dialect(mark)
            if mark in record and dialect._end(mark + record) == len(record) + 1 and len(dialect.split(record)) > 1:
                several = mark == " " and "  " in record.strip()
                return "put one delimiter in the place of each run of blanks" if several else f"pass delimiter={mark!r}"
        return ""

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
