"""What the server's machine gives back for an event."""

from dataclasses import dataclass

from karp.protocol.messages import FromServer
from karp.protocol.reports import Report


@dataclass(slots=True)
class Send:
    """This message to that peer."""

    peer: bytes
    message: FromServer


@dataclass(slots=True)
class Save:
    """Write a checkpoint of the server as it is now; a `lasting` one is on the disk before what follows is done."""

    lasting: bool = False


Action = Send | Report | Save  # a report goes to whoever shows or keeps the run
