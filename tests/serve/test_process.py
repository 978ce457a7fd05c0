"""The server's process: what it passes to the server's machine, and in which order."""

from types import SimpleNamespace
from typing import Any

from karp.protocol.messages import Done, Finish, FromWorker, Ping
from karp.protocol.server.actions import Action, Send
from karp.serve.process import ServerProcess

LEADER = b"1"


class Machine:
    """Notes its events; a Ping it answers."""

    version = 8

    def __init__(self) -> None:
        self.events: list[object] = []

    def receive(self, peer: bytes, message: FromWorker, incarnation: int, now: float) -> list[Action]:
        self.events.append(type(message))
        return [Send(peer, Finish(8, True, "", None, 8))] if isinstance(message, Ping) else []

    def lost(self, peer: bytes, now: float) -> list[Action]:
        self.events.append(("lost", peer))
        return []


class Disconnected:
    """The transport, after a worker has sent its last messages and ended."""

    unopened = ()
    may_have_message = True

    def __init__(self, messages: list[FromWorker]) -> None:
        self.messages = messages

    def receive(self) -> tuple[bytes, FromWorker, int] | None:
        return (LEADER, self.messages.pop(0), 0) if self.messages and self.may_have_message else None

    def send(self, peer: bytes, message: object) -> bool:
        return False


def process_of(machine: Machine, end: Any) -> ServerProcess:
    process = ServerProcess.__new__(ServerProcess)
    process.__dict__ |= {"server": machine, "end": end, "unreachable": []}
    process.__dict__["record"] = SimpleNamespace(writer=SimpleNamespace(troubles=[]))
    return process


def test_the_last_messages_of_a_worker_that_has_ended_are_handled_before_it_is_dropped() -> None:
    """Else a leader that was asked for a sign of life as it ended would be replaced, and its code run twice."""
    machine = Machine()
    process = process_of(machine, Disconnected([Ping(0), Done()]))
    process.receive()
    assert [Ping, Done, ("lost", LEADER)] == machine.events


def test_a_peer_found_unreachable_outside_of_receiving_is_dropped_after_what_it_has_sent() -> None:
    machine, end = Machine(), Disconnected([Done()])
    process = process_of(machine, end)
    process.perform([Send(LEADER, Finish(8, True, "", None, 8))])
    end.may_have_message = False  # as after a wait that has ended by shared memory
    process.receive()
    assert [Done, ("lost", LEADER)] == machine.events
