"""Handshakes that fail: both ends say why, no send blocks, and closing does not either."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from karp.errors import KarpError, LostError, RefusedError, SettingError
from karp.launch.credentials import keys_for
from karp.parameters import Layout
from karp.protocol.messages import Ping
from karp.protocol.worker import LOST_SECONDS, Worker
from karp.transport import keys
from karp.transport.handshake_worker import ConnectionState, endpoints, probe
from karp.transport.keys import Keys
from karp.transport.listening import address_of, listen
from karp.transport.server_end import ServerEnd
from karp.transport.worker_end import WorkerEnd
from karp.transport.zeromq_server import ServerSocket
from karp.transport.zeromq_worker import WorkerSocket

LAYOUT = Layout({"weight": (2,)}, "float32")
RUN, OTHER = keys.make(), keys.make()


@contextlib.contextmanager
def server(own: Keys | None) -> Iterator[tuple[ServerEnd, str]]:
    descriptor = (listener := listen()).fileno()
    address = address_of(listener)
    end = ServerEnd(ServerSocket(descriptor, address, "run", keys=own), None, pytest.fail)
    listener.detach()  # the server's socket closes it
    yield end, address
    end.close()


@contextlib.contextmanager
def worker(address: str, own: Keys | None = None) -> Iterator[WorkerSocket]:
    end = WorkerSocket(address, "run", own)
    yield end
    end.close()


@contextlib.contextmanager
def listener(says: bytes | None) -> Iterator[str]:
    """Something that is no karp server: it says this and waits, or, with None, closes every connection."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        accepted = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = door.accept()
                    if says is None:
                        connection.close()
                    else:
                        connection.sendall(says)
                        accepted.append(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{door.getsockname()[1]}"
        door.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in accepted:
            connection.close()


def trouble(end: WorkerSocket, other: ServerEnd | None, look: bool) -> KarpError:
    """The error that a worker which waits in silence ends with; it goes on sending."""
    for _ in range(3000):  # each wait ends as soon as something happens
        end.send(Ping(0), 0)
        end.connection.monitor.poll(20)
        if other is not None:
            other.wait(0.0, -1)
        try:
            end.connection.diagnose(look)
        except KarpError as error:
            return error
    raise AssertionError(f"nothing was found out: {end.connection.state}, {end.connection.closed}")


@pytest.mark.parametrize(
    ("of_server", "of_worker", "says", "server_says"),
    [
        (RUN, None, "takes workers with its keys alone, and this one has none: pass --keys DIR", "without keys"),
        (None, RUN, "has no keys, but this worker has: leave out --keys", "with keys"),
        (RUN, OTHER, "breaks off every handshake: these are not its keys", "came with another server's public key"),
        (
            RUN,
            RUN._replace(worker_public=OTHER.worker_public, worker_secret=OTHER.worker_secret),
            "does not let this worker's key in: these are not its keys",
            "came with a workers' key that is not this run's",
        ),
        (RUN, RUN._replace(worker_secret=OTHER.worker_secret), "breaks off every handshake", "key of its own"),
    ],
)
def test_both_ends_say_which_key_it_was(
    of_server: Keys | None, of_worker: Keys | None, says: str, server_says: str
) -> None:
    with server(of_server) as (end, address):
        with worker(address, of_worker and of_worker.for_worker()) as other:
            error = trouble(other, end, look=True)
        assert (RefusedError, True) == (type(error), says in str(error)), error
        assert address in str(error)
        reasons = end.socket.rejected.take_reasons()
        assert any(server_says in reason for reason in reasons), reasons
        assert [] == end.socket.rejected.take_reasons()


def test_the_address_of_who_is_turned_away_is_said_while_it_can_be_known() -> None:
    with server(RUN) as (end, address), socket.create_connection(("127.0.0.1", int(address.rsplit(":")[-1]))) as other:
        for _ in range(100):  # accepted
            end.wait(1.0, -1)
            if end.socket.rejected.addresses:
                break
        other.close()
        reasons: list[str] = []
        for _ in range(100):
            end.wait(1.0, -1)
            if reasons := end.socket.rejected.take_reasons():
                break
        assert reasons[0].startswith("a connection from 127.0.0.1 broke off the handshake (")
        assert {} == end.socket.rejected.addresses


def test_an_address_that_cannot_be_known_any_more_is_not_made_up() -> None:
    with server(None) as (end, _):
        end.socket.rejected.reasons.append("broke off")
        with Path("/dev/null").open() as file:  # its descriptor is no connection's
            monitor = zmq.Context.instance().socket(zmq.PAIR)
            monitor.bind("inproc://events")
            end.socket.rejected.monitor.close()
            end.socket.rejected.monitor = zmq.Context.instance().socket(zmq.PAIR)
            end.socket.rejected.monitor.connect("inproc://events")
            for event in (zmq.EVENT_ACCEPTED, zmq.EVENT_DISCONNECTED):
                head = int(event).to_bytes(2, "little") + file.fileno().to_bytes(4, "little")
                monitor.send_multipart([head, b"tcp://127.0.0.1:1"])
                end.socket.rejected.read_events()
            monitor.close()
        assert ["a connection broke off"] == end.socket.rejected.take_reasons()


@pytest.mark.parametrize("own", [None, RUN.for_worker()], ids=["without keys", "with keys"])
@pytest.mark.parametrize(
    ("says", "found"),
    [
        (b"", "accept"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "speaks no ZeroMQ, but says b'SSH-2.0-"),
        (None, "closes them at once"),
    ],
)
def test_what_is_no_karp_server_is_described(own: Keys | None, says: bytes | None, found: str) -> None:
    with listener(says) as address, worker(address, own) as end:
        for _ in range(3000):
            end.send(Ping(0), 0)
            end.connection.monitor.poll(20)
            try:
                known = end.connection.diagnose(probe_address=True)
            except LostError as error:  # ZeroMQ has given up
                known = str(error)
            if found in known or (says and end.connection.state is ConnectionState.CONNECTED):  # a slow one
                return
        raise AssertionError(known)


def test_another_zeromq_is_not_waited_for() -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as pub:
        address = f"tcp://127.0.0.1:{pub.bind_to_random_port('tcp://127.0.0.1')}"
        with worker(address) as end:
            error = trouble(end, None, look=False)
        assert f"what listens at {address} is no karp server: its ZeroMQ is not that of one" in str(error)


def test_where_nothing_listens_the_system_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        address = f"tcp://127.0.0.1:{door.getsockname()[1]}"
    with worker(address) as end:
        assert "there is no connection" == end.connection.diagnose(probe_address=False)
        assert "it cannot be reached (Connection refused)" == end.connection.diagnose(probe_address=True)
        assert "it cannot be reached (Connection refused)" == end.connection.diagnose(probe_address=False)


def test_a_name_that_is_none_is_said() -> None:
    mechanism, found = probe("tcp://no-such-host.invalid:5555")
    assert ("", True) == (mechanism, found.startswith("it cannot be reached ("))
    assert ["tcp://no-such-host.invalid:5555"] == endpoints("tcp://no-such-host.invalid:5555")


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """'localhost' is often ::1 first, and the server listens on 127.0.0.1."""
    with server(None) as (end, address):
        port = int(address.rsplit(":")[-1])
        places = [(0, 0, 0, "", ("::1", port, 0, 0)), (0, 0, 0, "", ("127.0.0.1", port))]
        with monkeypatch.context() as patch:
            patch.setattr("socket.getaddrinfo", lambda *_, **__: places)
            assert [f"tcp://[::1]:{port}", address] == endpoints(f"tcp://localhost:{port}")
            other = WorkerSocket(f"tcp://localhost:{port}", "run")
        for _ in range(3000):
            other.send(Ping(0), 0)
            other.connection.monitor.poll(20)
            other.connection.diagnose(probe_address=False)
            end.wait(0.0, -1)
            if (arrived := end.receive()) is not None:
                break
        assert arrived is not None
        assert Ping(0) == arrived[1]
        other.close()


def test_a_worker_says_what_it_waits_for_and_for_how_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("karp.transport.worker_end.time.monotonic", lambda: now[0])
    with listener(b"") as address, worker(address) as end_of_worker:
        end = WorkerEnd(end_of_worker, Worker(LAYOUT.zeros()), LAYOUT)
        end.worker.heard = now[0]
        said = []
        for silent in (0.0, 4.9, 5.0, 6.0, 9.9, 10.0, 12.0, 20.0, 21.0, 40.0, 59.0):
            now[0] = 100.0 + silent
            assert end.receive(0.0) is None
            said += [silent] if (err := capsys.readouterr().err) else []
            if silent == 5.0:
                assert err.startswith(f"karp: the server at {address} has not answered for 5 s: ")
                assert err.endswith("; this worker waits for 55 s more\n")
        assert [5.0, 10.0, 20.0, 40.0] == said
        with pytest.raises(LostError, match=f"no server has answered at {address} for 60 s: .*; is that its address"):
            end.worker.tick(100.0 + LOST_SECONDS, end.address, end.diagnosis)


KEYS = json.loads(RUN.to_text())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (RUN.to_text()[:150], "holds no keys: make them with"),
        ("", "holds no keys: make them with"),
        ("[]", "holds no keys: make them with"),
        ("[" * 100_000, "holds no keys: make them with"),
        ("\udcff", "holds no keys: make them with"),
        (json.dumps(KEYS | {"extra": ""}), "holds no keys: make them with"),
        (json.dumps(KEYS | {"server_public": ""}), "is damaged: server_public is no key; copy it once more"),
        (json.dumps(KEYS | {"worker_secret": RUN.worker_secret[:30]}), "worker_secret is no key"),
        (json.dumps(KEYS | {"worker_public": "ä" * 40}), "worker_public is no key"),
        (json.dumps(KEYS | {"worker_public": "#" * 40}), "worker_public is no key"),
        (json.dumps(KEYS | {"server_public": 7}), "server_public is no key"),
        (json.dumps(KEYS | {"worker_secret": OTHER.worker_secret}), "public and secret keys do not belong together"),
        (json.dumps(KEYS | {"server_public": OTHER.server_public}), "public and secret keys do not belong together"),
    ],
)
def test_damaged_keys_are_found_where_they_are_read(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / keys.FILE
    file.write_bytes(text.encode(errors="surrogateescape"))
    file.chmod(0o600)
    with pytest.raises(SettingError, match=reason):
        keys.read(tmp_path)


def test_a_workers_keys_are_not_enough_for_a_server(tmp_path: Path) -> None:
    """Its socket would have been another client, and let in everybody."""
    keys.write(RUN.for_worker(), tmp_path / keys.FILE)
    assert RUN.for_worker() == keys.read(tmp_path)
    with pytest.raises(SettingError, match="lacks the server's secret key"):
        keys_for("127.0.0.1", str(tmp_path))
