"""CURVE keys: who may talk to a server beyond this machine.

A run has two key pairs, the server's and the workers'. A server lets in processes that prove the workers' key, and a
worker trusts a server that proves the server's key. All messages are encrypted (ZeroMQ's CURVE).
"""

import json
from pathlib import Path
from typing import NamedTuple

from karp.errors import RecordError, SettingError
from karp.record import files

FILE = "karp-keys.json"


class Keys(NamedTuple):
    """The two key pairs of a run in ZeroMQ's text form, 40 characters each; a worker has no `server_secret`."""

    server_public: str
    server_secret: str
    worker_public: str
    worker_secret: str

    def for_worker(self) -> "Keys":
        """Return these keys without the server's secret key."""
        return Keys(self.server_public, "", self.worker_public, self.worker_secret)

    def to_text(self) -> str:
        """Encode the keys as one line, for a file or the environment variable KARP_KEYS."""
        return json.dumps(self._asdict())

    @classmethod
    def from_text(cls, text: str, where: str) -> "Keys":
        """Decode the line that `to_text` makes; raises SettingError, naming `where` it was found, for wrong keys."""
        try:
            keys = cls(**json.loads(text))
            damage = keys._damage()
        except (TypeError, ValueError, RecursionError):
            raise SettingError(f"{where} holds no keys: make them with `karp keys DIR`") from None
        if damage:
            raise SettingError(f"{where} is damaged: {damage}; copy it once more from where the run is launched")
        return keys

    def _damage(self) -> str:
        """Return what is wrong with these keys; '' if each is a key and the halves of each pair belong together."""
        import zmq

        for name, key in self._asdict().items():
            if name == "server_secret" and key == "":
                continue
            try:
                zmq.curve_public(key.encode("ascii"))  # this raises for what cannot be a key
            except (AttributeError, ValueError, zmq.ZMQError):
                return f"{name} is no key"
        pairs = (self.server_public, self.server_secret), (self.worker_public, self.worker_secret)
        if any(secret and zmq.curve_public(secret.encode()) != public.encode() for public, secret in pairs):
            return "its public and secret keys do not belong together"
        return ""


def make() -> Keys:
    """Generate the keys of a run."""
    import zmq

    server_public, server_secret = zmq.curve_keypair()
    worker_public, worker_secret = zmq.curve_keypair()
    return Keys(server_public.decode(), server_secret.decode(), worker_public.decode(), worker_secret.decode())


def write(keys: Keys, path: Path) -> None:
    """Write the keys to a file that only its owner may read; raises RecordError if it exists or cannot be written."""
    try:
        with files.replacing(path, 0o600, over=False) as file:
            file.write(keys.to_text().encode() + b"\n")
    except FileExistsError:
        raise RecordError(f"{path} exists: keys are not overwritten; remove it or name another directory") from None
    except OSError as error:
        raise RecordError(f"the keys cannot be written to {path}: {files.reason(error)}") from None


def read(path: Path) -> Keys:
    """Read the keys file `path`, or the keys file in the directory `path`.

    Raises SettingError if the file cannot be read, holds no keys or damaged ones, or may be read by other users.
    """
    file = path / FILE if path.is_dir() else path
    try:
        if file.stat().st_mode & 0o077:
            raise SettingError(f"{file} may be read by others: chmod 600 it")
        text = file.read_text(errors="replace")
    except OSError as error:
        why = f"the keys {file} cannot be read: {files.reason(error)}"
        raise SettingError(f"{why}; make them with `karp keys DIR`") from None
    return Keys.from_text(text, str(file))
