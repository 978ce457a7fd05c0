"""Standard streams that may be closed, or whose reader may go, while the work goes on.

What Python does about a stream that cannot be written is made for programs whose output is all they do: print raises,
what stays in the buffer is tried once more when the interpreter ends, and if that fails the exit status is 120. For
karp a reader that has gone (`karp launch … 2>&1 | head -1`) is no failure of a run. So karp's own lines go through an
`Output`: what cannot be written is thrown away, and nothing is left to be tried again. Whether that is a failure of the
command too, its exit status says (`lost`).
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OUTPUT, ERRORS = 1, 2
FAILS_ON_TEXT = ("strict", "surrogateescape")  # handlers that raise for a character which the encoding lacks


def open_closed() -> None:
    """Open the null device on each standard descriptor that is closed.

    Else the next file or socket would be opened there, and whoever starts a child or says an error would take it for
    the standard stream.
    """
    for standard in range(3):
        try:
            os.fstat(standard)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free


class Output(io.FileIO):
    """A descriptor to write to; what cannot be written is thrown away, and what follows may be written again."""

    failure: OSError | None = None  # the first one, but for readers that have gone

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write, waiting where the descriptor would not; raises nothing."""
        written: int | None = None
        while written is None:
            try:
                if (written := super().write(data)) is None:
                    wait_for(self.fileno())
            except OSError as error:
                written = memoryview(data).nbytes
                if not isinstance(error, ConnectionError):
                    self.failure = self.failure or error
        return written


def wait_for(descriptor: int) -> None:
    """Wait until a descriptor that another process has made non-blocking can be written."""
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


def guarded(stream: TextIO | None, descriptor: int) -> TextIO:
    """Return a stream that writes through an `Output` to the descriptor of this one.

    A character that its encoding lacks, or a byte of a file's name that is no text, is written as an escape.
    """
    encoding, errors = ("utf-8", "strict") if stream is None else (stream.encoding, stream.errors or "strict")
    return io.TextIOWrapper(
        io.BufferedWriter(Output(descriptor, "w", closefd=False)),
        encoding,
        "backslashreplace" if errors in FAILS_ON_TEXT else errors,
        line_buffering=True,
    )


def for_progress() -> TextIO | None:
    """Return a stream to standard error beside the program's own, whose failures are none of the program's.

    Where a program has put another stream in its place, that one; None where it is closed.
    """
    if sys.stderr is None or sys.stderr is not sys.__stderr__:
        return sys.stderr
    try:
        return guarded(sys.stderr, ERRORS)
    except OSError:  # the descriptor is closed
        return None


@contextlib.contextmanager
def command() -> Iterator[None]:
    """Within this, a command of karp's writes through `Output`s, and no standard stream is closed."""
    open_closed()
    before = sys.stdin, sys.stdout, sys.stderr
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:  # nobody has put another in its place
        sys.stdout = guarded(sys.stdout, OUTPUT)
    if sys.stderr is sys.__stderr__:
        sys.stderr = guarded(sys.stderr, ERRORS)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def show(content: bytes) -> None:
    """Print what another process has printed, byte by byte where standard output takes bytes."""
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:
        sys.stdout.write(content.decode(errors="replace"))
    else:
        sys.stdout.flush()
        binary.write(content)
    sys.stdout.flush()


def lost() -> str:
    """Return why standard output could not be written; '' if it could, or if nobody reads it any more."""
    sys.stdout.flush()
    output = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = output.failure if isinstance(output, Output) else None
    return "" if failure is None else failure.strerror or str(failure)
