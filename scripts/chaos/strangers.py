"""Strangers: connections to the server's port that do not belong to the run, and what they cost it.

Each stranger is a function of (host, port) that returns what must be closed to end it; until then it goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos import watch
from chaos.run import DIGITS, environment

IDLE = 1000
GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01NULL" + b"\0" * 16 + b"\0" + b"\0" * 31  # ZMTP 3.1, 64 bytes
READY = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
EPOCHS, ROUNDS, GOAL = 60, 5, 0.8

Stranger = Callable[[str, int], "contextlib.ExitStack"]


def connect(host: str, port: int, stack: contextlib.ExitStack) -> socket.socket:
    """Return a TCP connection that the stack closes."""
    return stack.enter_context(socket.create_connection((host, port), timeout=10))


def greet(peer: socket.socket) -> None:
    """Shake hands as a DEALER does: ZeroMQ closes the connection of a peer that sends a message earlier."""
    for sent, missing in ((GREETING, len(GREETING)), (READY, 2)):
        peer.sendall(sent)
        while missing > 0:
            missing -= len(peer.recv(missing)) or missing


def garbage(host: str, port: int) -> contextlib.ExitStack:
    """Send random bytes, more than any greeting has."""
    stack = contextlib.ExitStack()
    for seed in range(20):
        with contextlib.suppress(OSError):  # The server may close the connection first.
            connect(host, port, stack).sendall(random.Random(seed).randbytes(65536))
    return stack


def http(host: str, port: int) -> contextlib.ExitStack:
    """Send what a browser sends."""
    stack = contextlib.ExitStack()
    with contextlib.suppress(OSError):
        connect(host, port, stack).sendall(b"GET / HTTP/1.1\r\nHost: karp\r\n\r\n" * 10)
    return stack


def scanner(host: str, port: int) -> contextlib.ExitStack:
    """Connect and close, many times, as a port scanner does."""
    for _ in range(100):
        with contextlib.ExitStack() as stack:
            connect(host, port, stack)
    return contextlib.ExitStack()


def half_message(host: str, port: int) -> contextlib.ExitStack:
    """Greet as ZeroMQ does, announce a message, send a part of it and close the connection."""
    for size in (100, 1 << 20, 1 << 33):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            peer = connect(host, port, stack)
            greet(peer)
            peer.sendall(b"\x02" + size.to_bytes(8, "big") + b"\x82" * 50)
            while size > 1 << 32 and peer.recv(4096):  # The server closes the connection.
                pass
    return contextlib.ExitStack()


def idle(host: str, port: int) -> contextlib.ExitStack:
    """Open a thousand connections that send nothing."""
    stack = contextlib.ExitStack()
    for _ in range(IDLE):
        connect(host, port, stack)
    return stack


def never_reads(host: str, port: int) -> contextlib.ExitStack:
    """Send two thousand messages at once, then twenty a second, and read no answer."""
    stack = contextlib.ExitStack()
    peer = connect(host, port, stack)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    message = b"\0\x05hello"

    def talk(over: threading.Event) -> None:
        with contextlib.suppress(OSError):
            greet(peer)
            peer.sendall(message * 2000)
            while not over.wait(0.05):
                peer.sendall(message)

    return background(talk, stack)


def drip(host: str, port: int) -> contextlib.ExitStack:
    """Greet from twenty peers, one byte a second each."""
    stack = contextlib.ExitStack()
    peers = [connect(host, port, stack) for _ in range(20)]

    def talk(over: threading.Event) -> None:
        for byte in GREETING + READY:
            for peer in peers:
                with contextlib.suppress(OSError):
                    peer.sendall(bytes([byte]))
            if over.wait(1.0):
                return

    return background(talk, stack)


def background(talk: Callable[[threading.Event], None], stack: contextlib.ExitStack) -> contextlib.ExitStack:
    """Run `talk` in a thread until the stack is closed."""
    over = threading.Event()
    thread = threading.Thread(target=talk, args=[over], daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(over.set)  # The stack calls it before it joins the thread.
    return stack


def dealer(host: str, port: int, frames: list[bytes], **options: Any) -> contextlib.ExitStack:
    """Send a message ten times from a ZeroMQ peer with these options."""
    import zmq

    context = zmq.Context()
    end = context.socket(zmq.DEALER)
    end.linger = 0
    for name, value in options.items():
        setattr(end, name, value)
    end.connect(f"tcp://{host}:{port}")
    for _ in range(10):
        end.send_multipart(frames)
    stack = contextlib.ExitStack()
    stack.callback(context.term)
    stack.callback(end.close)
    return stack


COSTLY: dict[str, Stranger] = {
    "1,000 idle connections": idle,
    "a peer that never reads": never_reads,
    "1 byte a second": drip,
}


# The cost of strangers.


def rate(stranger: Stranger | None, directory: Path) -> float:
    """Return the samples/s of a run of digits with two workers, with a stranger from before its first step."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    command = [sys.executable, "-m", "karp.cli", "launch", "-n", "2", "--port", str(port), "--run-dir", str(directory)]
    process = subprocess.Popen(
        [*command, str(DIGITS), "--epochs", str(EPOCHS)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with contextlib.ExitStack() as stack:
        while stranger is not None and process.poll() is None:
            try:
                stack.enter_context(stranger("127.0.0.1", port))
                break
            except ConnectionRefusedError:  # The launcher does not listen yet.
                continue
        process.wait()
    if process.returncode:
        raise RuntimeError(f"the run ended with status {process.returncode}: {directory}")
    return float(watch.summary(directory)["samples_per_s"])


def bench(file: str | None) -> int:
    """Measure each rate ROUNDS times, in turns; return the exit status, 0 if no stranger's median is below the goal."""
    kinds: dict[str, Stranger | None] = {"undisturbed": None, **COSTLY}
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory(prefix="karp-strangers-") as folder:
        for turn in range(ROUNDS):
            for number, (name, stranger) in enumerate(kinds.items()):
                rates[name].append(rate(stranger, Path(folder) / f"{turn}-{number}"))
    usual = statistics.median(rates["undisturbed"])
    shares = {name: statistics.median(measured) / usual for name, measured in rates.items()}
    print(f"{'stranger':26} {'samples/s, median':>18} {'lowest':>10} {'highest':>10} {'share':>6}")
    for name, measured in rates.items():
        row = f"{statistics.median(measured):18,.0f} {min(measured):10,.0f} {max(measured):10,.0f} {shares[name]:6.2f}"
        print(f"{name:26} {row}")
    if file:
        Path(file).write_text(json.dumps({"rates": rates, "shares": shares, "cores": os.cpu_count()}) + "\n")
    return 0 if min(shares.values()) >= GOAL else 1
