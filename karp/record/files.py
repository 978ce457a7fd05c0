"""Writing files so that they are complete or absent.

A file is written under a temporary name, flushed to the disk and then renamed. So neither a full disk nor a killed
process nor a loss of power leaves an incomplete file under its name, or destroys the one before. If writing fails, the
temporary file is removed, as it may hold the last blocks of the disk. A launcher uses this, so it imports no NumPy.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

STREAMS = {"/dev/stdout", "/dev/stderr"}
DESCRIPTORS = ("/dev/fd/", "/proc/")  # paths that begin so name open files
NO_FLUSHING = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}  # a file system cannot flush a directory


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o666, *, over: bool = True, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a file to write, which gets the name `path` and this mode when the block ends without an exception.

    After an exception nothing of it is left, and an earlier file of that name is as it was. With `over` an earlier file
    is replaced; without, it is a FileExistsError. `durable`: the file is on the disk when the block has ended, and so
    outlives a loss of power; that takes milliseconds. A path that names a device, a pipe or an open file is written to
    directly. Raises OSError if writing fails.
    """
    if is_stream(path):
        with path.open("wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))  # a link's target is replaced, not the link
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if over:
            os.replace(temporary, path)
        else:
            _rename_to_new(temporary, path)
        if durable:
            flush_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def lock(descriptor: int) -> bool | None:
    """Lock an open file until it is closed; return False if another process has, None where there are no locks.

    Without locks it cannot be known whether that process is gone.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # this system has none, or this file system
        return None
    return True


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`; unlike `os.replace` raise FileExistsError if there is a file of that name."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # this file system has no links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.replace(temporary, path)
    else:
        temporary.unlink()


def write(path: Path, content: bytes) -> None:
    """Write a file completely; raises OSError if that fails, and leaves an earlier file as it was."""
    with replacing(path) as file:
        file.write(content)


def write_json(path: Path, content: Any) -> None:
    """Write a file of indented JSON completely; raises OSError if that fails."""
    write(path, to_json(content))


def to_json(content: Any) -> bytes:
    """Encode content as indented JSON, with a line end."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """Read a file of JSON; raises OSError if it cannot be read, ValueError if its content is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None


def is_stream(path: Path) -> bool:
    """Return whether a path names a pipe, a device or an open file, such as /dev/stdout, and so is not replaced."""
    named = str(path) in STREAMS or str(path).startswith(DESCRIPTORS)
    return named or (path.exists() and not path.is_file() and not path.is_dir())


def same_file(path: Path, others: Iterable[Any]) -> bool:
    """Return whether a path names the same regular file as one of `others`, of which some may be no paths at all."""
    for other in others:
        if isinstance(other, str | bytes | os.PathLike) and path.is_file():
            with contextlib.suppress(OSError, ValueError):  # there is no such file
                if os.path.samefile(path, other):
                    return True
    return False


def flush_directory(path: Path) -> None:
    """Flush a directory to the disk, so that a renaming in it survives a loss of power; raises OSError if that fails.

    On a file system that cannot flush directories it does nothing.
    """
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
    """Remove temporary files that a killed process has left."""
    for part in directory.glob(".*.part"):
        with contextlib.suppress(OSError):
            part.unlink()


def reason(error: BaseException) -> str:
    """Return why something failed, in a few words: the system's for an OSError, else the exception's repr."""
    return error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
