"""The actions that the server's machine returns for an event; its driver performs them."""

from dataclasses import dataclass

from karp.protocol.messages import FromServer
from karp.protocol.reports import Report


@dataclass(slots=True)
class Send:
    """Send this message to this peer."""

    peer: bytes
    message: FromServer


@dataclass(slots=True)
class Save:
    """Write a checkpoint of the server as it is now; a `durable` one reaches the disk before the next action."""

    durable: bool = False


Action = Send | Report | Save  # a report goes to all viewers of the run
