"""The settings of a run: everything on which its workers must agree, because the bits of the weights depend on it.

The first worker to join brings the settings. Those of each later worker are compared with them, and the run's record
keeps them.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from karp import consistency, optim
from karp.errors import SettingError
from karp.limits import ANY_SHARDS, RANGES, setting
from karp.parameters import Layout
from karp.protocol import best


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run; `from_dict` checks each of them.

    `program_sha256`, `data_sha256` and `weights_sha256` are hex digests of the program's text, of its data and of the
    initial weights ('' where there is no program file). `staleness` is the number of steps that the weights under a
    gradient may be old, None for an asynchronous run. `codec` and `codec_weights` encode gradients on their way to the
    server and weights on theirs to the workers. With `local_steps` above 1 a step is a round of so many global batches:
    `optimizer` is that of the workers' local steps, `outer` that of the server. With `wait_for_score` an epoch begins
    only when the score of the one before is known. `weighted`: samples have weights, and contributions carry their
    sums. With `keep_best` the run ends with the weights of the epoch whose score of this name is best by `mode` and
    `ties` (protocol/best.py). With `block` an epoch permutes blocks of so many samples, and the samples within each;
    with 0 all of them (data/plan.py). A field with a default may be left out of a dict.
    """

    program: str
    program_sha256: str
    layout: Layout
    weights_sha256: str
    optimizer: optim.Optimizer
    samples: int
    data_sha256: str
    batch_size: int
    epochs: int
    shards: int
    seed: int
    threads: int
    evaluate: bool
    wait_for_score: bool
    staleness: int | None = 0
    codec: str | None = None
    codec_weights: str | None = None
    local_steps: int = 1
    outer: optim.Optimizer | None = None
    weighted: bool = False
    keep_best: str | None = None
    mode: str = "max"
    ties: str = "last"
    block: int = 0

    @property
    def applied(self) -> optim.Optimizer:
        """The optimiser that the server applies."""
        return self.outer or self.optimizer

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain types, for a message or a file."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        outer = None if self.outer is None else optim.to_dict(self.outer)
        return plain | {
            "layout": self.layout.to_dict(),
            "optimizer": optim.to_dict(self.optimizer),
            "outer": outer,
        }

    @classmethod
    def from_dict(cls, plain: object) -> "Settings":
        """Rebuild settings from the map that `to_dict` returned; raises SettingError, naming the field, otherwise."""
        if not isinstance(plain, Mapping):
            raise SettingError(f"settings are a map, not {plain!r:.60}")
        plain = {field.name: field.default for field in fields(cls) if field.default is not MISSING} | dict(plain)
        names = [field.name for field in fields(cls)]
        if set(plain) != set(names):
            wrong = ", ".join(sorted(str(name)[:40] for name in set(plain) ^ set(names)))
            raise SettingError(f"settings: missing or unknown: {wrong}")
        for name in ("program", "program_sha256", "weights_sha256", "data_sha256"):
            if type(plain[name]) is not str or len(plain[name]) > 1000:
                raise SettingError(f"settings: {name} is {plain[name]!r:.60}, not a text")
        plain |= {name: setting(name, plain[name]) for name in RANGES}
        plain |= {option.name: option.check(plain[option.name]) for option in consistency.OPTIONS}
        for name in ("evaluate", "wait_for_score", "weighted"):
            if type(plain[name]) is not bool:
                raise SettingError(f"settings: {name} is {plain[name]!r:.60}, not true or false")
        plain |= best.check(plain["keep_best"], plain["mode"], plain["ties"])
        if plain["keep_best"] is not None and not plain["evaluate"]:
            raise SettingError(
                f"keep_best is {plain['keep_best']!r:.60}, but the run has no scores: give trainer.batches a function "
                "that returns them, as evaluate"
            )
        layout, optimizer = Layout.from_dict(plain["layout"]), optim.from_dict(plain["optimizer"])
        parts: dict[str, Any] = {"layout": layout, "optimizer": optimizer}
        if (plain["outer"] is not None) != (plain["local_steps"] > 1):
            given = "missing" if plain["outer"] is None else "given"
            local = f"local_steps={plain['local_steps']}"
            raise SettingError(f"outer is {given} with {local}: it goes with more than one local step, and only then")
        if plain["outer"] is not None:
            parts["outer"] = optim.from_dict(plain["outer"])
        return cls(**(dict(plain) | parts))

    def with_shards(self, shards: int) -> "Settings":
        """Return the same settings with another number of shards, for a program that leaves it to the run."""
        return replace(self, shards=shards)

    def differences(self, program: "Settings") -> list[str]:
        """Return the settings in which a program differs from this run, each as a text with both values; [] if none.

        A program that leaves the number of shards to the run does not differ in it.
        """
        if self == program:
            return []
        of_run, of_program = flatten(self.to_dict()), flatten(program.to_dict())
        if program.shards == ANY_SHARDS:
            of_program["shards"] = self.shards
        return [
            f"{name} is {of_program.get(name)!r:.80} in the program, {of_run.get(name)!r:.80} in the run"
            for name in dict.fromkeys([*of_run, *of_program])
            if of_run.get(name) != of_program.get(name)
        ]


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested maps into one, with dots in the names.

    >>> flatten({"optimizer": {"lr": 1}, "seed": 0})
    {'optimizer.lr': 1, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
