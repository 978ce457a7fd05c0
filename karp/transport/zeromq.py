"""The two ends of the wire: ROUTER at the server, DEALER at the worker, over tcp.

The server listens on a socket that the launcher has bound to port 0 before it started any process: the address is
known to all of them, and outlives the server, so a server that is started again is found without being looked for.

ZeroMQ's own heartbeats, answered by its I/O threads while a program computes, tell a dead peer from a busy one: the
server learns of it when it next sends to that peer, which it does every second.

Both ends spin before they sleep, as with shared memory (`karp.transport.segment`): waking a core that has gone to sleep
costs more than a message of up to a MiB or two. A worker whose vector is longer sleeps at once, as its core has other
work: the I/O threads, of the other workers too.
"""

import zmq

from karp.transport.keys import Keys

MESSAGE_BYTES = 1 << 32  # ZeroMQ drops the connection of a peer that announces a longer frame
HEARTBEAT_SECONDS = 2.0
DEAD_SECONDS = 6.0  # a peer whose heart has not beaten for so long is gone
# Every so many turns a busy server does not spin but sleeps. It looks at all that may come then, and the kernel at its
# cores: beside one that never sleeps, two workers may stay on another core for ever.
LOOK_EVERY = 256
EVENTS, POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)  # plain numbers: they are used often
UNREAD_MESSAGES = 1000  # kept for a peer that does not read; then it counts as gone


def tune(end: "zmq.Socket[bytes]", keys: Keys | None) -> None:
    """What both ends have in common."""
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


def arrival(end: "zmq.Socket[bytes]") -> bool:
    """Whether a message has arrived."""
    return bool(int(end.getsockopt(EVENTS)) & POLLIN)


