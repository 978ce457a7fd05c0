"""Files that are whole or absent.

A file is written aside, flushed to the disk and then given its name, so that neither a full disk nor a death nor a loss
of power leaves half of it under that name, or takes the one that was there. What was written aside goes if it failed:
it may hold the last blocks of the disk. This room is the launcher's, too, so it imports no NumPy.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

STREAMS = {"/dev/stdout", "/dev/stderr"}
DESCRIPTORS = ("/dev/fd/", "/proc/")  # what begins with these
NO_FLUSHING = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}  # of a directory, says its file system


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o666, *, over: bool = True) -> Iterator[BinaryIO]:
    """Yield a file that is `path`, with this mode, when the block has ended well; `over`: in the place of another.

    Raises OSError if that cannot be, FileExistsError if it is not to take the place of one that is there.
    """
    if is_stream(path):
        with path.open("wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))  # what a link names, not the link
    aside = path.with_name(f".{path.name[:50]}.{os.getpid()}.part")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if over:
            os.replace(aside, path)
        else:
            _move_to_new(aside, path)
        flush_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def _move_to_new(aside: Path, path: Path) -> None:
    """Rename a file; unlike `os.replace` raises FileExistsError if there is one of that name."""
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:  # this file system has no links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.replace(aside, path)
    else:
        aside.unlink()


def write(path: Path, content: bytes) -> None:
    """Write a whole file; raises OSError if that cannot be, and leaves what was there."""
    with replacing(path) as file:
        file.write(content)


def write_json(path: Path, content: Any) -> None:
    """Write a whole file of JSON that is indented; raises OSError if that cannot be."""
    write(path, to_json(content))


def to_json(content: Any) -> bytes:
    """Return the content of a file of JSON, indented."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """Return what a file of JSON holds; raises OSError or, for what is none, ValueError."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None


def is_stream(path: Path) -> bool:
    """Return whether what is written to this path goes to a pipe, a device or an open file, such as /dev/stdout."""
    named = str(path) in STREAMS or str(path).startswith(DESCRIPTORS)
    return named or (path.exists() and not path.is_file() and not path.is_dir())


def flush_directory(path: Path) -> None:
    """Make a renaming in this directory outlive a loss of power."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NO_FLUSHING:
            raise


def remove_parts(directory: Path) -> None:
    """Remove what a death has left of files that were being written."""
    for part in directory.glob(".*.part"):
        with contextlib.suppress(OSError):
            part.unlink()


def reason(error: BaseException) -> str:
    """Return why something failed, in a few words."""
    return error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
