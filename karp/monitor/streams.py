"""Standard streams that may be closed, or whose reader may end, while a run goes on.

Python's treatment of a stream that cannot be written suits programs that exist for their output: print raises, what is
left in the buffer is written again when the interpreter ends, and if that fails the exit status is 120. For karp a
reader that has ended (`karp launch … 2>&1 | head -1`) is no failure of a run. So karp's own lines go through an
`Output`: it discards what cannot be written, so nothing is left to be written again. `output_failure` tells whether the
command has failed for it.
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
FAILS_ON_TEXT = ("strict", "surrogateescape")  # error handlers that raise for a character that the encoding lacks


def open_standard_descriptors() -> None:
    """Open the null device on each standard descriptor that is closed.

    Otherwise the next file or socket would get its number, and a child process or a print would write to it as to the
    standard stream.
    """
    for standard in range(3):
        try:
            os.fstat(standard)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the system gives it the lowest free number


class Output(io.FileIO):
    """A raw output stream that discards data that cannot be written, and goes on with the next."""

    failure: OSError | None = None  # the first one that is not a closed pipe

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write the data, waiting for a non-blocking descriptor; no OSError is raised.

        Returns the number of bytes written; where that fails, all of the data is discarded and counts as written. The
        first error is kept in `failure`, unless the reader has only gone (a ConnectionError).
        """
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
    """Wait until a descriptor that another process has made non-blocking can be written to."""
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


def safe_stream(stream: TextIO | None, descriptor: int) -> TextIO:
    """Return a stream that writes to this descriptor through an `Output`, with the encoding of `stream`.

    A character that the encoding lacks, or a byte of a file's name that is no text, is written as an escape.
    """
    encoding, errors = ("utf-8", "strict") if stream is None else (stream.encoding, stream.errors or "strict")
    return io.TextIOWrapper(
        io.BufferedWriter(Output(descriptor, "w", closefd=False)),
        encoding,
        "backslashreplace" if errors in FAILS_ON_TEXT else errors,
        line_buffering=True,
    )


def for_progress() -> TextIO | None:
    """Return a stream to standard error for karp alone, whose failures do not affect the program's own stream.

    If the program has replaced sys.stderr, return its stream (or None); if standard error is closed, return None.
    """
    if sys.stderr is None or sys.stderr is not sys.__stderr__:
        return sys.stderr
    try:
        return safe_stream(sys.stderr, ERRORS)
    except OSError:  # the descriptor is closed
        return None


@contextlib.contextmanager
def command() -> Iterator[None]:
    """Run a command of karp's in this block, in which the standard streams are open and write through an `Output`.

    A stream that the program has replaced stays as it is.
    """
    open_standard_descriptors()
    before = sys.stdin, sys.stdout, sys.stderr
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:  # the program has not replaced it
        sys.stdout = safe_stream(sys.stdout, OUTPUT)
    if sys.stderr is sys.__stderr__:
        sys.stderr = safe_stream(sys.stderr, ERRORS)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def show(content: bytes) -> None:
    """Print the output of another process: its bytes as they are, where standard output takes bytes."""
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:
        sys.stdout.write(content.decode(errors="replace"))
    else:
        sys.stdout.flush()
        binary.write(content)
    sys.stdout.flush()


def output_failure() -> str:
    """Return why standard output could not be written; '' if it could, or if its reader has ended."""
    sys.stdout.flush()
    output = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = output.failure if isinstance(output, Output) else None
    return "" if failure is None else failure.strerror or str(failure)
