"""The three ways in: frames from the wire, decoded messages, checkpoint files.

Each function makes so many inputs from a source of chance and returns how many of them were accepted. It raises for
what may not be: another error than karp's own, weights that are not the reference's, a server that remembers strangers,
a run that does not end, a damaged file that is taken for whole.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from fuzz.mutate import bent, damaged
from fuzz.world import LAYOUT, SHARDS, World, first_weights, gradient, held, settings
from karp.data import Plan
from karp.errors import DataError, ProtocolError, RefusedError, RunError, SettingError
from karp.protocol import messages as say
from karp.protocol.messages import FROM_SERVER, FROM_WORKER, decode, encode
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import restore, take
from karp.protocol.tree import Node
from karp.record import checkpoints
from karp.transport.frames import Envelope, pack, unpack

RUN = "0123456789abcdef"
PATIENCE = 4000  # turns until a run that is left alone has ended


# The wire.


def corpus() -> list[list[bytes]]:
    """A message of every kind, as frames."""
    vector, nodes = first_weights(), [Node(0, 4, 0.5, first_weights()), Node(4, 5, 0.5, first_weights())]
    found: list[Any] = [
        say.Join(1, settings(), "host", 7),
        say.Initial(vector),
        say.Contribution(3, 3, nodes, [(0, "norm", 1.0)], False),
        say.Score(1, {"accuracy": 0.5}, False),
        say.Ping(3),
        say.Stop(),
        say.Leave([(-1, "accuracy", 0.5)]),
        say.Failure(3, 1, -1, "ValueError: x", "Traceback\n"),
        say.Done(),
        say.Welcome(1, SHARDS, True),
        say.Rejoin(),
        say.Refusal("no"),
        say.Lease(4, 3, 0, 2, 3, vector),
        say.Evaluation(5, 0, 3, vector),
        say.Waiting("worker 2"),
        say.Finish(9, True, "", vector),
        say.Closed(),
    ]
    return [
        [frame if isinstance(frame, bytes) else frame.tobytes() for frame in pack(message, Envelope(RUN, 1))]
        for message in found
    ]


CORPUS = corpus()


def wire(inputs: int, chance: random.Random) -> int:
    """Frames that are nearly messages: a ProtocolError or a message, nothing else."""
    accepted = 0
    for _ in range(inputs):
        frames = mangled(list(chance.choice(CORPUS)), chance)
        try:
            unpack(frames, RUN, chance.choice([FROM_WORKER, FROM_SERVER]))  # type: ignore[arg-type]
            accepted += 1
        except ProtocolError as error:
            if len(str(error)) > 5000:
                raise AssertionError("the message of an error grows with its input") from error
    return accepted


def mangled(frames: list[bytes], chance: random.Random) -> list[bytes]:
    """Damage to one frame, to what the head says, or to the order of frames."""
    way = chance.randrange(8)
    if way < 3:
        at = chance.randrange(len(frames))
        frames[at] = damaged(frames[at], chance)
    elif way < 7:
        head = bent(msgpack.unpackb(frames[0]), chance)
        try:
            frames[0] = msgpack.packb(head)
        except (OverflowError, ValueError):
            frames[0] = b"\xc1"
    else:
        frames = [*chance.choices(frames, k=chance.randrange(4)), chance.randbytes(chance.randrange(9))]
    return frames


# The machine.


def machine(inputs: int, chance: random.Random) -> int:
    """Messages in any order between those of an honest run, from strangers and from a member that has gone mad."""
    world = World()
    accepted = 0
    joined = False
    for _ in range(inputs):
        if world.over or world.server.training.failure:
            world, joined = World(), False
        for _ in range(chance.randrange(3)):
            world.turn(chance)
        peer = chance.choice([b"s1", b"s2", b"mad"])
        if peer == b"mad" and not joined and world.server.joining.begun:
            joined = True
            world.arrive(peer, say.Join(-1, settings(), "host", 1), 0)
        accepted += hostile(world, peer, chance)
    left_alone(world, chance)
    return accepted


def hostile(world: World, peer: bytes, chance: random.Random) -> int:
    """One message; 1 if it was one."""
    server = world.server
    looked = peer != b"mad" and chance.random() < 0.2  # it takes longer than all the rest
    before = held(server) if looked else 0
    message = made_up(world, peer, chance)
    head, payload = encode(message)
    if chance.random() < 0.3:
        head = bent(head, chance)
        head = head if isinstance(head, dict) else {}
    if "settings" in head and chance.random() < 0.3:
        head["settings"] = bent(head["settings"], chance)
    if chance.random() < 0.2:
        payload = [payload[0]] * chance.randrange(3) if payload else [first_weights()]
    try:
        message = decode(head, payload, FROM_WORKER)
    except ProtocolError as error:
        world.take(server.malformed(peer, str(error), world.now))
        return 0
    nodes = message.nodes if peer == b"mad" and isinstance(message, say.Contribution) else []
    if any(lie(world, message.step, one) for one in nodes):
        return 1
    world.arrive(peer, message, chance.choice([server.incarnation, server.incarnation, 5]))
    if peer != b"mad":
        if isinstance(message, say.Join):
            world.take(server.lost(peer, world.now))  # a stranger knows no run's settings; this one had them, and goes
        elif looked and held(server) > before:
            raise AssertionError(f"the server remembers a stranger's {type(message).__name__}")
    return 1


def lie(world: World, step: int, one: Node) -> bool:
    """A gradient that fits the model and is finite, yet not that of its shards: nobody can tell, so none is sent."""
    updater, vector = world.server.training.updater, one.vector
    if updater is None or vector is None or vector.shape != (LAYOUT.size,) or vector.dtype != np.float32:
        return False
    if not np.isfinite(vector).all() or one.stop > SHARDS or not 0 <= step < 99:
        return False
    return one.stop > one.start + 1 or vector.tobytes() != gradient(updater.weights, step, one.start).tobytes()


def made_up(world: World, peer: bytes, chance: random.Random) -> Any:
    """A message of any kind with numbers near to what would be right."""
    version = world.server.training.version
    step = chance.choice([version, version, version, version - 1, version + 1, 0, 1 << 40])
    step = max(0, step)
    epoch = chance.choice([-1, 0, 1, 2, 99])
    match chance.randrange(10):
        case 0:
            changed = settings().with_shards(chance.choice([SHARDS, SHARDS, 7, 0]))
            return say.Join(chance.choice([-1, 0, 3, 1 << 40]), changed, "host", 1)
        case 1:
            return say.Initial(chance.choice([first_weights(), first_weights()[:3], noise(chance)]))
        case 2 | 3 | 4:
            nodes = [node(world, step, chance) for _ in range(chance.randrange(4))]
            logs = [(chance.randrange(-1, 9), chance.choice("abc"), 0.5)] * chance.randrange(3)
            return say.Contribution(step, chance.choice([step, step, version]), nodes, logs, chance.random() < 0.01)
        case 5:
            return say.Score(max(0, epoch), {"accuracy": chance.choice([0.5, float("nan")])}, chance.random() < 0.01)
        case 6:
            return say.Ping(chance.choice([0, 1, 2, 5, 1 << 40]))
        case 7:
            return chance.choice([say.Stop(), say.Done(), say.Leave([(-1, "a", 1.0)])])
        case 8:
            failure = say.Failure(step, chance.choice([-1, 0, 1, 99]), epoch, "E", "T")
            return failure if chance.random() < 0.1 else say.Ping(0)
        case _:
            return say.Leave([])


def noise(chance: random.Random) -> Any:
    vector = first_weights()
    vector[0] = chance.choice([np.nan, np.inf, 7.0])
    return vector


def node(world: World, step: int, chance: random.Random) -> Node:
    """A node with the right sum, or one that must be refused."""
    shards = world.plan.shards_of(min(step, 8))
    start = chance.randrange(shards)
    updater = world.server.training.updater
    weights = updater.weights if updater is not None else first_weights()
    good = Node(start, start + 1, 0.25, gradient(weights, step, start) if step < 100 else first_weights())
    match chance.randrange(8):
        case 0:
            return good._replace(stop=chance.choice([start + 2, start + 3, 1 << 47]), vector=first_weights()[:5])
        case 1:
            return good._replace(start=start + chance.choice([SHARDS, 1 << 40]), stop=chance.choice([1 << 41, 1 << 47]))
        case 2:
            return good._replace(vector=first_weights().astype(np.float64))
        case 3:
            wide = chance.choice([(start, start + 1), (0, 1 << 47), (1, 4), (3, 3 + (1 << 30))])
            bad = np.full(LAYOUT.size, np.nan, np.float32)
            return Node(*wide, 0.25, bad if chance.random() < 0.5 or wide == (start, start + 1) else first_weights())
        case _:
            return good


def left_alone(world: World, chance: random.Random) -> None:
    """When nobody disturbs it any more, the run ends."""
    for turn in range(PATIENCE):
        if world.over or world.server.training.failure:
            return
        if turn == PATIENCE // 2:
            for peer in (b"mad", b"s1", b"s2"):
                world.take(world.server.lost(peer, world.now))
        world.turn(chance)
        if turn % 10 == 0:
            world.now += 0.3
            world.take(world.server.tick(world.now))
    raise AssertionError(f"the run has not ended: {world.server.waited_for()}")


# Checkpoint files.


def snapshot() -> Any:
    world = World()
    chance = random.Random(0)
    while world.server.training.version < 4:
        world.turn(chance)
    return take(world.server)


SNAPSHOT = snapshot()


def files(inputs: int, chance: random.Random, folder: Path) -> int:
    """Damaged files, and files whose hash is right but whose content is not: DataError, or SettingError, or whole."""
    good = checkpoints.write(folder, SNAPSHOT, 1)
    content, path = good.read_bytes(), folder / "damaged.safetensors"
    accepted = 0
    for _ in range(inputs):
        if chance.random() < 0.5:
            path.write_bytes(damaged(content, chance))
            try:
                plain, vectors = checkpoints.read(path)
            except DataError:
                continue
            assert plain == SNAPSHOT[0], "a damaged checkpoint was taken for whole"
            assert all((vectors[name] == SNAPSHOT[1][name]).all() for name in SNAPSHOT[1])
            accepted += 1
        else:
            accepted += restored(bent(SNAPSHOT[0], chance), dict(SNAPSHOT[1]), chance)
    return accepted


def restored(plain: Any, vectors: dict[str, Any], chance: random.Random) -> int:
    """A checkpoint that somebody has written by hand."""
    if chance.random() < 0.3:
        name = chance.choice(sorted(vectors))
        vectors[name] = chance.choice([vectors[name][:3], vectors[name].astype(np.int8), np.zeros((2, 2))])
    if chance.random() < 0.1:
        del vectors[chance.choice(sorted(vectors))]
    server = Server(3, Plan, 0.0)
    try:
        restore(server, (plain, vectors))
    except SettingError:
        return 0
    world = World(server)
    with contextlib.suppress(RefusedError, RunError):  # the settings may be another run's
        for _ in range(60):
            world.turn(chance)
    return 1

