"""The address of a run's server as text, as ZeroMQ writes it: "tcp://HOST:PORT"."""

import re


def compose(host: str, port: int) -> str:
    """Return the address of a host and a port.

    >>> compose("127.0.0.1", 5555), compose("::1", 5555)
    ('tcp://127.0.0.1:5555', 'tcp://[::1]:5555')
    """
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def split(address: str) -> tuple[str, int]:
    """Return host and port of an address; raises ValueError if it is none, or its port is above 65535.

    >>> split("tcp://node-7:5555"), split("tcp://[::1]:5555")
    (('node-7', 5555), ('::1', 5555))
    """
    match = re.fullmatch(r"tcp://(.+):(\d{1,5})", address)
    if match is None or int(match[2]) >= 1 << 16:
        raise ValueError(f"{address!r} is no address tcp://HOST:PORT")
    return match[1].strip("[]"), int(match[2])
