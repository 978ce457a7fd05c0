"""The socket that a run's server listens on: the launcher binds it before it starts any process."""

import socket

from karp.errors import SettingError


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Open a listening TCP socket, to be handed to the server process; port 0 takes a free one.

    Raises SettingError if the host is not one of this machine's or the port is in use.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        where = f"{host}:{port}" if port else host
        raise SettingError(f"the server cannot listen on {where}: {error}; name another host or port") from None
    listener.listen(1024)
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address of a listening socket as ZeroMQ writes it: 'tcp://127.0.0.1:40123'."""
    host, port = listener.getsockname()[:2]
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
