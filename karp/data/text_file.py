"""A text file whose lines can be read more than once.

Theory of operation. A table may be read twice (`reading.py`), and both readings must see the same bytes. So a file is
opened once, and each reading begins at its start: a file that replaces it meanwhile is not read, and one that is
written to while it is read is an error. What can be read only once (a pipe, a FIFO, `/dev/stdin`, a process
substitution, a device) is first copied, into memory or, if it is long, a temporary file.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, cast

from karp.data.formats import GZIP, HEAD, recognise
from karp.errors import DataError, RecordError, SettingError

NumberedLines = Generator[tuple[int, str], None, None]  # (number from 1, line with its end)

_IN_MEMORY = 2**26  # bytes: a copy that is longer lies in a temporary file
_BLOCK = 2**20  # characters


@dataclass(frozen=True, slots=True)
class TextFile:
    """An open file of text that may be compressed with gzip; `name` is for errors."""

    name: str
    raw: IO[bytes]

    def lines(self) -> NumberedLines:
        """Yield the lines from the first on, with their numbers.

        A byte that is not UTF-8 comes as a lone surrogate, for `check_utf8`. One reading must be over before the
        next begins. Raises DataError where the file cannot be read.
        """
        number = 0
        with self._text(lambda: number) as text:
            for number, line in enumerate(text, 1):
                yield number, line

    def blocks(self) -> NumberedLines:
        """Yield the text of many lines at a time, with the number of the first; otherwise as `lines`."""
        number = 1
        with self._text(lambda: number - 1) as text:
            while block := text.read(_BLOCK):
                block += "" if block.endswith("\n") else text.readline()
                yield number, block
                number += block.count("\n")

    @contextmanager
    def _text(self, last_line: Callable[[], int]) -> Iterator[io.TextIOWrapper]:
        """Open the file at its start, as text whose lines end with a line feed; raise DataError for damaged data."""
        self.raw.seek(0)
        # Its content decides, not its name: a browser may have unpacked a .gz and kept the name.
        packed = self.raw.read(len(GZIP)) == GZIP
        self.raw.seek(0)
        data = gzip.GzipFile(fileobj=self.raw, mode="rb") if packed else self.raw
        text = io.TextIOWrapper(cast(IO[bytes], data), encoding="utf-8-sig", errors="surrogateescape")
        try:
            yield text
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self.name}: compressed data cut short or damaged after line {last_line()} ({error}): fetch it again"
            ) from error
        finally:
            text.detach()  # closing it would close the file

    def check_utf8(self, number: int, line: str) -> None:
        """Raise DataError for a line that is not UTF-8."""
        try:
            line.encode()
        except UnicodeEncodeError as error:
            byte = ord(line[error.start]) - 0xDC00
            raise DataError(
                f"{self.name}, line {number}: byte {byte:#04x} is not UTF-8: save the file as UTF-8; if it is in "
                "Windows-1252 (Latin-1), as by `iconv -f WINDOWS-1252 -t UTF-8`"
            ) from None


@contextmanager
def opened(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes], accepts: Callable[[bytes], object] = lambda head: False
) -> Iterator[TextFile]:
    """Open a file to be read as text, any number of times.

    Raises DataError if the file is not there, cannot be read, is of another format than CSV or changes before the
    `with` block ends, and SettingError for a path that is not one. `accepts` is called with the first bytes: if it
    returns true, the format is not checked, and the caller reads the file from `raw`.
    """
    name, shown = _name(path)
    try:
        with open(name, "rb") as file:
            before = os.fstat(file.fileno())
            head = file.read(HEAD)  # checked before the file is copied, as a device may have no end
            if not accepts(head):
                _refuse_other_formats(shown, head)
            if stat.S_ISREG(before.st_mode):
                change = DataError(f"{shown}: it was written to while it was read: read it when it is complete")
                try:
                    yield TextFile(shown, file)
                except DataError as error:
                    if _changed(file, before):
                        raise change from error
                    raise
                if _changed(file, before):
                    raise change
            else:
                with tempfile.SpooledTemporaryFile(_IN_MEMORY) as copy:
                    copy.write(head)
                    shutil.copyfileobj(file, copy)
                    yield TextFile(shown, cast(IO[bytes], copy))
    except RecordError:  # an OSError, too, but of what is written while the file is open
        raise
    except FileNotFoundError:
        raise DataError(f"{shown}: there is no such file{_hint(name)}") from None
    except IsADirectoryError:
        raise DataError(f"{shown}: is a directory: pass a file in it") from None
    except OSError as error:
        hint = _hint(name) if "\n" in name else ""  # a text given as a path is too long for a name
        raise DataError(f"{shown:.400}: cannot be read: {error.strerror or error}{hint}") from error


def _changed(file: IO[bytes], before: os.stat_result) -> bool:
    """Return whether a file's size or time of change differ from `before`, so that it was written to."""
    after = os.fstat(file.fileno())
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)


def _name(path: object) -> tuple[str, str]:
    """Return the path as text, and as it can be printed; raise SettingError for anything but the path of a file."""
    try:
        name = os.fsdecode(path)  # type: ignore[arg-type]  # it raises TypeError for what is no path
    except TypeError:
        hint = "; what is open already cannot be read" if hasattr(path, "read") else ""
        raise SettingError(f"path is {path!r:.80}: pass the path of a file{hint}") from None
    try:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        shown = ""
    if not shown or "\0" in name:
        raise SettingError(f"path is {name!r:.80}: pass the path of a file")
    return name, shown


def _hint(name: str) -> str:
    """Return where a file that does not exist was looked for, or what to pass instead of its name; '' if neither."""
    if name == "-":
        return ": pass '/dev/stdin' to read the standard input"
    if "://" in name:
        return ": download it first"
    if "\n" in name:
        return ": pass the path of a file, not its text"
    if name.startswith("~"):
        return ": pass os.path.expanduser(path), '~' is for shells"
    return "" if os.path.isabs(name) else f" in {os.getcwd()}"


def _refuse_other_formats(shown: str, head: bytes) -> None:
    """Raise DataError if the file is of a format that is no CSV, packed or not."""
    inside = ""
    if head.startswith(GZIP):
        inside = "compressed with gzip, and inside "
        with gzip.GzipFile(fileobj=io.BytesIO(head), mode="rb") as packed:
            head = b""
            with suppress(EOFError, zlib.error, gzip.BadGzipFile):  # the head ends in the middle of the data
                head = packed.read1(HEAD)
    if what := recognise(head):
        raise DataError(f"{shown}: it is {inside}{what}")
