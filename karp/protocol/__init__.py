"""What server and workers say to each other, and the two state machines that say it. No I/O, no clock, no chance."""

from karp.protocol.actions import Action, Report, Save, Send
from karp.protocol.messages import Message
from karp.protocol.server import Server
from karp.protocol.settings import Settings
from karp.protocol.snapshot import Snapshot, restore, take
from karp.protocol.tree import Node, TreeSum
from karp.protocol.worker import Worker

__all__ = [
    "Action",
    "Message",
    "Node",
    "Report",
    "Save",
    "Send",
    "Server",
    "Settings",
    "Snapshot",
    "TreeSum",
    "Worker",
    "restore",
    "take",
]
