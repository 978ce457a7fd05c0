"""The server's end of its connections: ZeroMQ to every worker, and shared memory besides to those that can open it.

The caller cannot tell which of the two a message has taken. Contributions and leases go through shared memory where
both ends have it; all other messages, and those that do not fit there, go over the socket.
"""

from collections.abc import Callable, Mapping

import zmq

from karp.errors import ProtocolError
from karp.protocol.messages import Evaluation, FromServer, FromWorker, Lease, Welcome
from karp.protocol.tree import Vector
from karp.transport.segment import SERVER_SPIN_SECONDS, not_shared, spin
from karp.transport.shared_server import SharedServer
from karp.transport.zeromq import POLL_EVERY
from karp.transport.zeromq_server import ServerSocket


class ServerEnd:
    """The socket to all workers, and the shared memory of some.

    `copy_borrowed` is called with the vector of a worker's slot before the worker is given a task, as the worker may
    then write there again: sums that still lie in the vector have to be copied.
    """

    def __init__(
        self, socket: ServerSocket, shared: SharedServer | None, copy_borrowed: Callable[[Vector], None]
    ) -> None:
        self.socket = socket
        self.shared = shared
        self.copy_borrowed = copy_borrowed
        self.unopened: dict[bytes, str] = {}  # peers that cannot open their slots, and why
        self.waits = 0
        self.may_have_message = True  # on the socket
        self.idle = False  # nothing arrived in the last wait, so the next does not spin
        if shared is not None:
            socket.poller.register(shared.wakeup, zmq.POLLIN)

    def wait(self, seconds: float, commands: int) -> bool:
        """Wait until something has arrived, at most `seconds`; return whether the descriptor `commands` is ready.

        A wait that ends while it spins does not look at `commands` and returns False; now and then one does not spin.
        """
        socket = self.socket
        shared = self.shared if self.shared is not None and self.shared.slots else None
        self.may_have_message = shared is None
        self.waits += 1
        if not self.idle and self.waits % POLL_EVERY:
            ready_to_read = shared.has_contribution if shared is not None else socket.has_message
            if spin(ready_to_read, SERVER_SPIN_SECONDS):
                return False
        if shared is not None:
            shared.set_asleep(True)
            if shared.has_contribution():
                seconds = 0.0
        ready = dict(socket.poller.poll(int(seconds * 1000)))
        self.idle = not ready
        if socket.rejected.monitor in ready:
            socket.rejected.read_events()
        if shared is not None:
            shared.set_asleep(False)
            if shared.wakeup in ready:
                shared.drain_wakeups()
        self.may_have_message = socket.socket in ready
        return commands in ready

    def receive(self) -> tuple[bytes, FromWorker | ProtocolError, int] | None:
        """Return the next message's sender, the message, and the incarnation it was sent to; None if none is there.

        For data that are not a message of this run, the message is a ProtocolError, returned and not raised.
        """
        if self.shared is not None and (received := self.shared.receive()) is not None:
            return *received, self.socket.envelope.incarnation
        if not self.may_have_message or (arrived := self.socket.receive()) is None:
            return None
        peer, message, envelope = arrived
        if envelope.unshared and self.shared is not None and peer in self.shared.slots:
            self.unopened[peer] = envelope.unshared
        return peer, message, envelope.incarnation

    def send(self, peer: bytes, message: FromServer) -> bool:
        """Send a message to a peer; return False if the peer is gone, or has a thousand unread messages."""
        if self.shared is None:
            return self.socket.send(peer, message)
        kind = type(message)  # `isinstance` with two classes takes longer than all else here
        if (kind is Lease or kind is Evaluation) and (slot := self.shared.slots.get(peer)) is not None:
            self.copy_borrowed(slot.segment.vector)
            if isinstance(message, Lease) and slot.put(message):
                return True
        return self.socket.send(peer, message, self.shared.invite(peer) if isinstance(message, Welcome) else "")

    def shares(self, peer: bytes) -> bool:
        """Return whether a peer shares the server's memory."""
        return self.shared is not None and peer in self.shared.slots and peer not in self.unopened

    def free_slots(self, workers: Mapping[bytes, int]) -> None:
        """Free the slots of workers that are gone or cannot open their slot, and tell the user of the latter.

        `workers`: peers in the run -> their numbers.
        """
        if self.shared is None:
            return
        without: dict[str, list[str]] = {}
        for peer in list(self.shared.slots):
            why = self.unopened.pop(peer, "")
            if peer not in workers or why:
                self.shared.forget(peer)
            if peer in workers and why:
                without.setdefault(why, []).append(str(workers[peer]))
        for why, numbers in without.items():
            who = f"worker{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
            self.shared.say(not_shared(who, why))

    def close(self) -> None:
        """Close the shared memory and the socket."""
        if self.shared is not None:
            self.shared.close()
        self.socket.close()
