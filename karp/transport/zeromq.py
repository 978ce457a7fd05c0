"""Options and figures common to both ends of a ZeroMQ connection: ROUTER at the server, DEALER at the worker, over tcp.

The server listens on a socket that the launcher has bound to port 0 before it started any process. So every process
knows the address, and a server that is started again is reached at the same one.

ZeroMQ's own heartbeats, which its I/O threads answer while a program computes, tell a dead peer from a busy one. The
server learns of a dead peer when it next sends to it, which it does every second.

Both ends spin before they sleep, as with shared memory (`karp.transport.segment`): waking a core that has gone to sleep
costs more than a message of up to a MiB or two. A worker whose vector is longer sleeps at once, as the I/O threads, of
the other workers too, need its core.
"""

import zmq

from karp.limits import DEAD_SECONDS
from karp.transport.keys import Keys

MESSAGE_BYTES = 1 << 32  # ZeroMQ drops the connection of a peer that announces a longer frame
HEARTBEAT_SECONDS = 2.0
# In one of so many waits a busy end does not spin but polls every source. Otherwise messages on the socket could be
# starved, and two workers could stay on one core for ever, as the kernel moves them only when a process sleeps.
POLL_EVERY = 256
EVENTS, POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)  # plain numbers: enum members are slow, and these are used often
UNREAD_MESSAGES = 1000  # the most that are kept for a peer that does not read; then it counts as gone


def set_options(end: "zmq.Socket[bytes]", keys: Keys | None) -> None:
    """Set the socket options that both ends have in common, and the keys."""
    end.setsockopt(zmq.LINGER, 1000)
    end.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
    end.setsockopt(zmq.RCVHWM, 0)
    end.setsockopt(zmq.SNDHWM, UNREAD_MESSAGES)
    end.setsockopt(zmq.HEARTBEAT_IVL, int(HEARTBEAT_SECONDS * 1000))
    end.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(DEAD_SECONDS * 1000))
    end.setsockopt(zmq.IPV6, 1)
    if keys is not None and keys.server_secret:
        end.curve_server = True
        end.curve_publickey, end.curve_secretkey = keys.server_public.encode(), keys.server_secret.encode()
    elif keys is not None:
        end.curve_serverkey = keys.server_public.encode()
        end.curve_publickey, end.curve_secretkey = keys.worker_public.encode(), keys.worker_secret.encode()


def has_message(end: "zmq.Socket[bytes]") -> bool:
    """Return whether a message has arrived."""
    return bool(int(end.getsockopt(EVENTS)) & POLLIN)


