"""The actions that the server's machine returns for an event; its driver performs them."""

from typing import NamedTuple

from karp.protocol.messages import FromServer
from karp.protocol.reports import Report


class Send(NamedTuple):
    """Send this message to this peer."""

    peer: bytes
    message: FromServer


class Save(NamedTuple):
    """Write a checkpoint of the server as it is now; a `durable` one reaches the disk before the next action."""

    durable: bool = False


Action = Send | Report | Save  # a report goes to all viewers of the run
