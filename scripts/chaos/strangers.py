"""Those who have no business at the server's port, and what they cost a run.

Each stranger is a function of (host, port) that returns what must be closed to send it away; until then it goes on.
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


def connected(host: str, port: int, stack: contextlib.ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection((host, port), timeout=10))


def greet(peer: socket.socket) -> None:
    """Shake hands as a DEALER does; whoever sends a message before the end of it is hung up on."""
    for mine, theirs in ((GREETING, len(GREETING)), (READY, 2)):
        peer.sendall(mine)
        while theirs > 0:
            theirs -= len(peer.recv(theirs)) or theirs


def garbage(host: str, port: int) -> contextlib.ExitStack:
    """Random bytes, more than any greeting."""
    stack = contextlib.ExitStack()
    for seed in range(20):
        with contextlib.suppress(OSError):  # the server may hang up while we talk
            connected(host, port, stack).sendall(random.Random(seed).randbytes(65536))
    return stack


def http(host: str, port: int) -> contextlib.ExitStack:
    """A browser that has come to the wrong door."""
    stack = contextlib.ExitStack()
    with contextlib.suppress(OSError):
        connected(host, port, stack).sendall(b"GET / HTTP/1.1\r\nHost: karp\r\n\r\n" * 10)
    return stack


def scanner(host: str, port: int) -> contextlib.ExitStack:
    """Connects and closes, many times."""
    for _ in range(100):
        with contextlib.ExitStack() as stack:
            connected(host, port, stack)
    return contextlib.ExitStack()


def half_message(host: str, port: int) -> contextlib.ExitStack:
    """Greets as ZeroMQ does, announces a message, sends half of it and hangs up."""
    for size in (100, 1 << 20, 1 << 33):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            peer = connected(host, port, stack)
            greet(peer)
            peer.sendall(b"\x02" + size.to_bytes(8, "big") + b"\x82" * 50)
            while size > 1 << 32 and peer.recv(4096):  # what is too long is hung up on
                pass
    return contextlib.ExitStack()


def idle(host: str, port: int) -> contextlib.ExitStack:
    """A thousand connections that say nothing."""
    stack = contextlib.ExitStack()
    for _ in range(IDLE):
        connected(host, port, stack)
    return stack


def never_reads(host: str, port: int) -> contextlib.ExitStack:
    """Asks and asks, and reads no answer: two thousand messages at once, then twenty a second."""
    stack = contextlib.ExitStack()
    peer = connected(host, port, stack)
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
    """Twenty peers that say what they have to say one byte a second."""
    stack = contextlib.ExitStack()
    peers = [connected(host, port, stack) for _ in range(20)]

    def talk(over: threading.Event) -> None:
        for byte in GREETING + READY:
            for peer in peers:
                with contextlib.suppress(OSError):
                    peer.sendall(bytes([byte]))
            if over.wait(1.0):
                return

    return background(talk, stack)


def background(talk: Callable[[threading.Event], None], stack: contextlib.ExitStack) -> contextlib.ExitStack:
    """Go on talking until the stack is closed."""
    over = threading.Event()
    thread = threading.Thread(target=talk, args=[over], daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(over.set)  # first of all
    return stack


def dealer(host: str, port: int, frames: list[bytes], **options: Any) -> contextlib.ExitStack:
    """A ZeroMQ peer with these options that sends this message ten times."""
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


# What they cost.


def rate(stranger: Stranger | None, directory: Path) -> float:
    """Samples per second of a run of digits with two workers, while a stranger is there from before its first step."""
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
            except ConnectionRefusedError:  # the launcher is not there yet
                continue
        process.wait()
    if process.returncode:
        raise RuntimeError(f"the run ended with status {process.returncode}: {directory}")
    return float(watch.summary(directory)["samples_per_s"])


def bench(file: str | None) -> int:
    """The rates in turn, ROUNDS of each; the exit status is 0 if the median of none is below the goal."""
    kinds: dict[str, Stranger | None] = {"undisturbed": None, **COSTLY}
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory(prefix="karp-strangers-") as folder:
        for turn in range(ROUNDS):
            for number, (name, stranger) in enumerate(kinds.items()):
                rates[name].append(rate(stranger, Path(folder) / f"{turn}-{number}"))
    usual = statistics.median(rates["undisturbed"])
    shares = {name: statistics.median(found) / usual for name, found in rates.items()}
    print(f"{'stranger':26} {'samples/s, median':>18} {'lowest':>10} {'highest':>10} {'share':>6}")
    for name, found in rates.items():
        row = f"{statistics.median(found):18,.0f} {min(found):10,.0f} {max(found):10,.0f} {shares[name]:6.2f}"
        print(f"{name:26} {row}")
    if file:
        Path(file).write_text(json.dumps({"rates": rates, "shares": shares, "cores": os.cpu_count()}) + "\n")
    return 0 if min(shares.values()) >= GOAL else 1
