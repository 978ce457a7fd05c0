"""The messages between the server and its workers, and the check of every field that arrives.

A message is one of the small classes below. On a wire it is a map of plain types, its head, and a list of flat vectors,
its payload; `encode` and `decode` convert between the two. `decode` trusts nothing: an unknown kind, a missing or
surplus field, a wrong type or range is a ProtocolError that names the field and its value.

        worker                                server
          Join(settings, kernels)   ->
                                    <-        Welcome(worker, shards, initial) or Refusal(reason)
          Initial(weights)          ->        (only where `initial` asks for them)
                                    <-        Lease(step, start, stop, version, weights)
          Contribution(step, nodes) ->
                                    <-        Lease | Evaluation | Finish         (as soon as there is one)
          Score(epoch, scores)      ->
                                    <-        Finish(main, weights)
          Leave(logs)               ->
          Done()                    ->        (the leader's program has ended well)
                                    <-        Closed()                            (to the others)
          Scale(workers)            ->        (from no worker, but from `karp scale`)
                                    <-        Waiting(reason) or Refusal(reason)

There is one round trip per step: the reply to a contribution is the next lease, with the weights if they are new.

Any message may be lost with a connection, a server or a worker, so each can be repeated without harm. A worker that has
had no answer for a while sends Ping(seen), the number of the last task it was given. From it the server knows which of
the two messages between them was lost, and sends the task again. A server that does not know a worker (it was
restarted, or took the worker for lost) answers Rejoin. A program that leaves its loop early sends Stop and waits for
Finish; one that raises sends Failure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import nan
from typing import Any, TypeVar

from karp.errors import ProtocolError
from karp.protocol.fields import (
    Logs,
    amounts,
    count,
    flag,
    from_minus_one,
    logs,
    nodes,
    number,
    numbers,
    ordinal,
    remarks,
    seconds,
    text,
    vectors,
)
from karp.protocol.kernels import UNKNOWN, Kernels
from karp.protocol.settings import Settings
from karp.protocol.tree import Node, Vector
from karp.text import REASON_CHARACTERS

ERROR, TRACEBACK, HOST = 2_000, 200_000, 255  # the most characters of a text
MOST_LOGGED = 10_000  # the most logged numbers in one message
PROTOCOL = 13  # counts the changes that make two versions of karp unable to work in one run


@dataclass(slots=True)
class Join:
    """A worker's request to take part; `worker` is the number that its launcher gave it, -1 for any."""

    worker: int
    settings: Settings
    host: str
    pid: int
    kernels: Kernels = UNKNOWN  # the kernels that the worker computes with


@dataclass(slots=True)
class Initial:
    """The initial weights of the model, sent by the worker that was asked for them, and its remarks on the data."""

    weights: Vector
    remarks: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Contribution:
    """The sums of a lease's gradients, one for each maximal node, computed with the weights of `version`."""

    step: int
    version: int
    nodes: list[Node]
    logs: Logs
    last: bool  # the program called trainer.stop(): the run ends once this step is applied
    lease: int = 0  # the lease's number; 0 over a medium that duplicates no message
    seconds: float = 0.0  # from the lease's arrival at its worker until this was sent; 0: not measured
    no_overflow: bool | None = None  # whether no sum of its vectors can overflow; None: not checked yet
    reason: str = ""  # why the gradient of a suspect lease is not finite, as far as its worker can tell
    sample_weights: list[float] = field(default_factory=list)  # sums over the step, then over each node


@dataclass(slots=True)
class Score:
    """The scores that the program's evaluate function returned for an epoch."""

    epoch: int
    scores: dict[str, float]
    last: bool


@dataclass(slots=True)
class Ping:
    """A reminder of a worker that has had no answer; `seen` is the number of its last task, 0 for none."""

    seen: int


@dataclass(slots=True)
class Stop:
    """The program has left its loop early: its worker takes no more leases, and the current step is the run's last."""


@dataclass(slots=True)
class Leave:
    """A worker's last message: it leaves the run, which is over."""

    logs: Logs


@dataclass(slots=True)
class Failure:
    """The program has raised, at this shard or in this epoch's evaluation (-1: elsewhere).

    `traceback` is what Python would print. `certain` says that any worker would raise there: the program breaks a rule.
    """

    step: int
    shard: int
    epoch: int
    error: str
    traceback: str
    certain: bool = False


@dataclass(slots=True)
class Done:
    """The leader's program has ended well, so no other worker has to become the leader."""


@dataclass(slots=True)
class Scale:
    """A user's request that the launcher has so many workers."""

    workers: int


@dataclass(slots=True)
class Welcome:
    """The answer to Join: the worker takes part; with `initial` it is asked for the model's initial weights."""

    worker: int
    shards: int
    initial: bool


@dataclass(slots=True)
class Rejoin:
    """The server does not know the worker, which has to join again."""


@dataclass(slots=True)
class Refusal:
    """The server refuses a worker, or one message of a worker, for this reason; either ends the worker's program."""

    reason: str


@dataclass(slots=True)
class Lease:
    """The grant of the shards start … stop-1 of a step, to be computed with the weights of `version`.

    `number` increases with every task that the server gives.
    """

    number: int
    step: int
    start: int
    stop: int
    version: int
    weights: Vector | None  # None: the worker has them already
    suspect: bool = False  # the gradient of this shard was not finite, so the worker has to check its data
    range: int = 0  # the range that it belongs to, 0: none (ranges.py); in shared memory only, never in a message
    end: int = 0  # the first step that does not end in this range


@dataclass(slots=True)
class Evaluation:
    """The grant of one epoch's evaluation, with the weights of that epoch's end (None: the worker has them already)."""

    number: int
    epoch: int
    version: int
    weights: Vector | None
    loss: float = nan  # the mean of the epoch's steps, each counted by its samples
    last_scores: dict[str, float] = field(default_factory=dict)  # of the epoch before; {} unless it was waited for


@dataclass(slots=True)
class Waiting:
    """A sign of life of the server; `reason` says whom it waits for, and since when, and '' says nothing of that."""

    reason: str


@dataclass(slots=True)
class Finish:
    """The run is over, after `steps` steps.

    `main` makes this worker the leader; `failure` says why the run failed, or is ''.
    """

    version: int
    main: bool
    failure: str
    weights: Vector | None
    steps: int = 0


@dataclass(slots=True)
class Closed:
    """The leader has ended, so this worker will not become the leader."""


FromWorker = Join | Initial | Contribution | Score | Ping | Stop | Leave | Failure | Done | Scale
FromServer = Welcome | Rejoin | Refusal | Lease | Evaluation | Waiting | Finish | Closed
Message = FromWorker | FromServer
Kind = TypeVar("Kind", bound=Message)

FROM_WORKER: dict[str, type[FromWorker]] = {
    kind.__name__.lower(): kind
    for kind in (Join, Initial, Contribution, Score, Ping, Stop, Leave, Failure, Done, Scale)
}
FROM_SERVER: dict[str, type[FromServer]] = {
    kind.__name__.lower(): kind for kind in (Welcome, Rejoin, Refusal, Lease, Evaluation, Waiting, Finish, Closed)
}


def encode(message: Message) -> tuple[dict[str, Any], list[Vector]]:
    """Return the head of a message, of plain types, and its payload.

    >>> encode(Lease(number=1, step=3, start=0, stop=2, version=3, weights=None))
    ({'kind': 'lease', 'number': 1, 'step': 3, 'start': 0, 'stop': 2, 'version': 3, 'weights': 0, 'suspect': False}, [])
    """
    head: dict[str, Any] = {"kind": type(message).__name__.lower()}
    for name in FIELD_CHECKS[type(message)]:
        head[name] = getattr(message, name)
    if isinstance(message, Contribution):
        head["nodes"] = [[node.start, node.stop, node.loss] for node in message.nodes]
        return head, [node.vector for node in message.nodes if node.vector is not None]
    if isinstance(message, Join):
        head["settings"], head["kernels"] = message.settings.to_dict(), message.kernels.to_dict()
    elif "weights" in head:
        payload = [] if head["weights"] is None else [head["weights"]]
        head["weights"] = len(payload)
        return head, payload
    return head, []


def decode(head: Mapping[str, Any], payload: Sequence[Vector], kinds: Mapping[str, type[Kind]]) -> Kind:
    """Rebuild a message from its head and payload; raise ProtocolError unless it is a correct message of `kinds`.

    >>> decode({"kind": "waiting", "reason": "worker 2, since 3 s"}, [], FROM_SERVER)
    Waiting(reason='worker 2, since 3 s')
    >>> decode({"kind": "lease", "step": -1}, [], FROM_SERVER)
    Traceback (most recent call last):
    karp.errors.ProtocolError: lease: fields missing: number, start, stop, version, weights, suspect
    """
    kind = kinds.get(head["kind"]) if isinstance(head.get("kind"), str) else None
    if kind is None:
        raise ProtocolError(f"unknown kind of message {head.get('kind')!r:.60}; known here: {', '.join(kinds)}")
    name, checks = str(head["kind"]), FIELD_CHECKS[kind]
    if head.keys() - {"kind"} != checks.keys():
        raise ProtocolError(f"{name}: {describe_wrong_fields(head, checks)}")
    values = {}
    for key, check in checks.items():
        try:
            values[key] = check(head[key])
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"{name}: {key} is {head[key]!r:.80}, not {error}") from None
    return kind(**attach_vectors(name, values, payload))


def describe_wrong_fields(head: Mapping[str, Any], expected: Mapping[str, object]) -> str:
    """Describe which fields a head lacks, or which unknown ones it has."""
    if missing := [field for field in expected if field not in head]:
        return f"fields missing: {', '.join(missing)}"
    surplus = [str(field)[:40] for field in head if field != "kind" and field not in expected]
    return f"unknown fields: {', '.join(surplus[:8])}"


def attach_vectors(name: str, values: dict[str, Any], payload: Sequence[Vector]) -> dict[str, Any]:
    """Return the fields with the payload's vectors put into them; raise ProtocolError for a wrong number of vectors."""
    expected = len(values["nodes"]) if "nodes" in values else values.get("weights", 0)
    if len(payload) != expected:
        raise ProtocolError(f"{name}: {len(payload)} vectors, but its head announces {expected}")
    if "nodes" in values:
        pairs = zip(values["nodes"], payload, strict=True)
        values["nodes"] = [Node(start, stop, loss, vector) for (start, stop, loss), vector in pairs]
    elif "weights" in values:
        values["weights"] = payload[0] if payload else None
        if name == "initial" and not payload:
            raise ProtocolError("initial: the weights are missing")
    return values


CHECKS: dict[str, Callable[[Any], Any]] = {
    "worker": from_minus_one,
    "workers": ordinal,
    "settings": Settings.from_dict,
    "kernels": Kernels.from_dict,
    "host": text(HOST),
    "pid": count,
    "seen": count,
    "number": ordinal,
    "shards": ordinal,
    "shard": from_minus_one,
    "weights": vectors,
    "step": from_minus_one,
    "steps": count,
    "start": count,
    "stop": ordinal,
    "version": count,
    "nodes": nodes,
    "logs": logs,
    "epoch": from_minus_one,
    "loss": number,
    "scores": numbers,
    "last_scores": numbers,
    "error": text(REASON_CHARACTERS),
    "traceback": text(TRACEBACK),
    "certain": flag,
    "initial": flag,
    "main": flag,
    "last": flag,
    "lease": count,
    "seconds": seconds,
    "reason": text(REASON_CHARACTERS),
    "remarks": remarks,
    "sample_weights": amounts,
    "suspect": flag,
    "failure": text(REASON_CHARACTERS),
}
UNCHECKED_FIELDS = {"no_overflow", "range", "end"}  # fields in no head: only an end that trusts its peer may set them
FIELD_CHECKS: dict[type, dict[str, Callable[[Any], Any]]] = {  # the fields of each kind in order, with their checks
    kind: {field.name: CHECKS[field.name] for field in fields(kind) if field.name not in UNCHECKED_FIELDS}
    for kind in {**FROM_WORKER, **FROM_SERVER}.values()
}
