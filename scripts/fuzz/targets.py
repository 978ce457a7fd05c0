"""The three ways in: frames from the wire, decoded messages, checkpoint files.

Each function draws so many inputs and returns how many of them were accepted. It raises for what must never happen:
an error that is not karp's own, weights that are not the reference's, a server that remembers strangers, a run that
does not end, a damaged file that is accepted.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from fuzz.mutate import damage, mutate
from fuzz.world import LAYOUT, SHARDS, World, count_held, first_weights, gradient, settings
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
MAX_TURNS = 4000  # until a run that nobody disturbs has ended


# The wire.


def corpus() -> list[list[bytes]]:
    """Return a message of every kind, as frames."""
    vector, nodes = first_weights(), [Node(0, 4, 0.5, first_weights()), Node(4, 5, 0.5, first_weights())]
    examples: list[Any] = [
        say.Join(1, settings(), "host", 7),
        say.Initial(vector),
        say.Contribution(3, 3, nodes, [(0, "norm", 1.0)], False, sample_weights=[5.5, 4.0, 1.5]),
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
        for message in examples
    ]


CORPUS = corpus()


def wire(inputs: int, rng: random.Random) -> int:
    """Unpack mutated frames: each is a message or raises ProtocolError."""
    accepted = 0
    for _ in range(inputs):
        frames = mutate_frames(list(rng.choice(CORPUS)), rng)
        try:
            unpack(frames, RUN, rng.choice([FROM_WORKER, FROM_SERVER]))  # type: ignore[arg-type]
            accepted += 1
        except ProtocolError as error:
            if len(str(error)) > 5000:
                raise AssertionError("the message of an error grows with its input") from error
    return accepted


def mutate_frames(frames: list[bytes], rng: random.Random) -> list[bytes]:
    """Return the frames with one of them, the values in the head, or their order and number changed."""
    mutation = rng.randrange(8)
    if mutation < 3:
        at = rng.randrange(len(frames))
        frames[at] = damage(frames[at], rng)
    elif mutation < 7:
        head = mutate(msgpack.unpackb(frames[0]), rng)
        try:
            frames[0] = msgpack.packb(head)
        except (OverflowError, ValueError):
            frames[0] = b"\xc1"
    else:
        frames = [*rng.choices(frames, k=rng.randrange(4)), rng.randbytes(rng.randrange(9))]
    return frames


# The machine.


def machine(inputs: int, rng: random.Random) -> int:
    """Send messages between those of an honest run, from strangers and from a worker of the run that sends anything."""
    world = World()
    accepted = 0
    joined = False
    for _ in range(inputs):
        if world.over or world.server.failure:
            world, joined = World(), False
        for _ in range(rng.randrange(3)):
            world.turn(rng)
        peer = rng.choice([b"s1", b"s2", b"mad"])
        if peer == b"mad" and not joined and world.server.begun:
            joined = True
            world.arrive(peer, say.Join(-1, settings(), "host", 1), 0)
        accepted += send_hostile(world, peer, rng)
    run_to_end(world, rng)
    return accepted


def send_hostile(world: World, peer: bytes, rng: random.Random) -> int:
    """Send one message from a hostile peer; return 1 if it was well formed, else 0."""
    server = world.server
    counted = peer != b"mad" and rng.random() < 0.2  # Counting takes longer than everything else.
    before = count_held(server) if counted else 0
    message = draw_message(world, peer, rng)
    head, payload = encode(message)
    if rng.random() < 0.3:
        head = mutate(head, rng)
        head = head if isinstance(head, dict) else {}
    if "settings" in head and rng.random() < 0.3:
        head["settings"] = mutate(head["settings"], rng)
    if rng.random() < 0.2:
        payload = [payload[0]] * rng.randrange(3) if payload else [first_weights()]
    try:
        message = decode(head, payload, FROM_WORKER)
    except ProtocolError as error:
        world.perform(server.malformed(peer, str(error), world.now))
        return 0
    nodes = message.nodes if peer == b"mad" and isinstance(message, say.Contribution) else []
    if any(is_plausible_lie(world, message.step, node) for node in nodes):
        return 1
    world.arrive(peer, message, rng.choice([server.incarnation, server.incarnation, 5]))
    if peer != b"mad":
        if isinstance(message, say.Join):
            world.perform(server.lost(peer, world.now))  # A stranger knows no run's settings. This one did, and leaves.
        elif counted and count_held(server) > before:
            raise AssertionError(f"the server remembers a stranger's {type(message).__name__}")
    return 1


def is_plausible_lie(world: World, step: int, node: Node) -> bool:
    """Return whether a gradient fits the model and is finite, and is not that of its shards: no server can tell."""
    weights, vector = world.server.weights, node.vector
    if weights is None or vector is None or vector.shape != (LAYOUT.size,) or vector.dtype != np.float32:
        return False
    if not np.isfinite(vector).all() or node.stop > SHARDS or not 0 <= step < 99:
        return False
    return node.stop > node.start + 1 or vector.tobytes() != gradient(weights, step, node.start).tobytes()


def draw_message(world: World, peer: bytes, rng: random.Random) -> Any:
    """Return a message of any kind, with numbers near those that would be right."""
    version = world.server.version
    step = rng.choice([version, version, version, version - 1, version + 1, 0, 1 << 40])
    step = max(0, step)
    epoch = rng.choice([-1, 0, 1, 2, 99])
    match rng.randrange(10):
        case 0:
            changed = settings().with_shards(rng.choice([SHARDS, SHARDS, 7, 0]))
            return say.Join(rng.choice([-1, 0, 3, 1 << 40]), changed, "host", 1)
        case 1:
            return say.Initial(rng.choice([first_weights(), first_weights()[:3], draw_bad_weights(rng)]))
        case 2 | 3 | 4:
            nodes = [draw_node(world, step, rng) for _ in range(rng.randrange(4))]
            logs = [(rng.randrange(-1, 9), rng.choice("abc"), 0.5)] * rng.randrange(3)
            sums = [1.0] * rng.choice([0, 0, 0, 1, len(nodes) + 1])
            made_with, last = rng.choice([step, step, version]), rng.random() < 0.01
            return say.Contribution(step, made_with, nodes, logs, last, sample_weights=sums)
        case 5:
            return say.Score(max(0, epoch), {"accuracy": rng.choice([0.5, float("nan")])}, rng.random() < 0.01)
        case 6:
            return say.Ping(rng.choice([0, 1, 2, 5, 1 << 40]))
        case 7:
            return rng.choice([say.Stop(), say.Done(), say.Leave([(-1, "a", 1.0)])])
        case 8:
            failure = say.Failure(step, rng.choice([-1, 0, 1, 99]), epoch, "E", "T")
            return failure if rng.random() < 0.1 else say.Ping(0)
        case _:
            return say.Leave([])


def draw_bad_weights(rng: random.Random) -> Any:
    """Return weights with one number that is wrong."""
    vector = first_weights()
    vector[0] = rng.choice([np.nan, np.inf, 7.0])
    return vector


def draw_node(world: World, step: int, rng: random.Random) -> Node:
    """Return a node with the right sum, or one that must be refused."""
    shards = world.plan.shards_of(min(step, 8))
    start = rng.randrange(shards)
    weights = first_weights() if world.server.weights is None else world.server.weights
    valid = Node(start, start + 1, 0.25, gradient(weights, step, start) if step < 100 else first_weights())
    match rng.randrange(8):
        case 0:
            return valid._replace(stop=rng.choice([start + 2, start + 3, 1 << 47]), vector=first_weights()[:5])
        case 1:
            return valid._replace(start=start + rng.choice([SHARDS, 1 << 40]), stop=rng.choice([1 << 41, 1 << 47]))
        case 2:
            return valid._replace(vector=first_weights().astype(np.float64))
        case 3:
            wide = rng.choice([(start, start + 1), (0, 1 << 47), (1, 4), (3, 3 + (1 << 30))])
            nan = np.full(LAYOUT.size, np.nan, np.float32)
            return Node(*wide, 0.25, nan if rng.random() < 0.5 or wide == (start, start + 1) else first_weights())
        case _:
            return valid


def run_to_end(world: World, rng: random.Random) -> None:
    """Let a run that nobody disturbs any more go on to its end."""
    for turn in range(MAX_TURNS):
        if world.over or world.server.failure:
            return
        if turn == MAX_TURNS // 2:
            for peer in (b"mad", b"s1", b"s2"):
                world.perform(world.server.lost(peer, world.now))
        world.turn(rng)
        if turn % 10 == 0:
            world.now += 0.3
            world.perform(world.server.tick(world.now))
    raise AssertionError(f"the run has not ended: {world.server.describe_wait()}")


# Checkpoint files.


def make_snapshot() -> Any:
    """Return the snapshot of a run under way."""
    world = World()
    rng = random.Random(0)
    while world.server.version < 4:
        world.turn(rng)
    return take(world.server)


SNAPSHOT = make_snapshot()


def files(inputs: int, rng: random.Random, folder: Path) -> int:
    """Read damaged checkpoints, and some whose hash is right and whose content is not; each is whole or raises."""
    content, path = checkpoints.write(folder, SNAPSHOT, 1).read_bytes(), folder / "damaged.safetensors"
    accepted = 0
    for _ in range(inputs):
        if rng.random() < 0.5:
            path.write_bytes(damage(content, rng))
            try:
                plain, vectors = checkpoints.read(path)
            except DataError:
                continue
            assert plain == SNAPSHOT[0], "a damaged checkpoint was taken for whole"
            assert all((vectors[name] == SNAPSHOT[1][name]).all() for name in SNAPSHOT[1])
            accepted += 1
        else:
            accepted += restore_mutated(mutate(SNAPSHOT[0], rng), dict(SNAPSHOT[1]), rng)
    return accepted


def restore_mutated(plain: Any, vectors: dict[str, Any], rng: random.Random) -> int:
    """Restore a server from a checkpoint that somebody has edited; return 1 if it is accepted, else 0."""
    if rng.random() < 0.3:
        name = rng.choice(sorted(vectors))
        vectors[name] = rng.choice([vectors[name][:3], vectors[name].astype(np.int8), np.zeros((2, 2))])
    if rng.random() < 0.1:
        del vectors[rng.choice(sorted(vectors))]
    server = Server(3, Plan, 0.0)
    try:
        restore(server, (plain, vectors))
    except SettingError:
        return 0
    world = World(server)
    with contextlib.suppress(RefusedError, RunError):  # The settings may be another run's.
        for _ in range(60):
            world.turn(rng)
    return 1

