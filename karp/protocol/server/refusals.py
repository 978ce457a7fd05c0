"""Refused messages and rejected connections: counting and reporting them."""

from karp.protocol import reports
from karp.protocol.messages import Refusal
from karp.protocol.server.actions import Action, Send
from karp.protocol.server.training import Training
from karp.text import REASON_CHARACTERS, counted


class Refusals:
    """Counts refused messages and rejected connections, and reports the 1st, 2nd, 4th, 8th, … of each."""

    def __init__(self, training: Training, out: list[Action]) -> None:
        self.training = training
        self.out = out
        self.messages = 0
        self.connections = 0

    def refuse(self, peer: bytes, reason: str) -> None:
        """Refuse a message: count it, and tell its sender the reason."""
        self.messages += 1
        self.out.append(Send(peer, Refusal(reason[:REASON_CHARACTERS])))
        if is_power_of_two(self.messages):
            count = f"{counted(self.messages, 'message')} refused so far"
            self.training.report(reports.Refused, f"{reason[:2000]} ({count})")

    def reject(self, reason: str) -> None:
        """Count a connection that was rejected for this reason."""
        self.connections += 1
        if is_power_of_two(self.connections):
            self.training.report(reports.Rejected, f"{reason} ({self.connections} turned away so far)")


def is_power_of_two(number: int) -> bool:
    """Return whether a number from 1 is 1, 2, 4, 8, …"""
    return number & (number - 1) == 0
