"""The consistency options: staleness, local steps and codecs, each defined once.

Each is an argument of Trainer, a field of a run's settings, an option of `karp launch` and `karp worker` and an
environment variable, all of which are made from the definitions here. The program or its launcher gives a value, and
all workers of a run must agree on it, because the bits of the weights depend on it.
"""

from typing import Any, NamedTuple

from karp import checks


class Option(NamedTuple):
    """A consistency option: its name, its default, its possible values, and how the command line writes them.

    >>> STALENESS.parse("2"), STALENESS.parse("none"), STALENESS.text(None), LOCAL_STEPS.flag
    (2, None, 'none', '--local-steps')
    >>> CODEC.parse("int4")
    Traceback (most recent call last):
    ...
    karp.errors.SettingError: codec must be one of float16, bfloat16, int8, not 'int4'
    """

    name: str  # the name of the argument and of the setting
    default: int | None
    values: range | tuple[str, ...]  # None is possible, too, where it is the default or has a text
    metavar: str
    help: str
    none_text: str | None = None  # how the command line writes None; None: by leaving the option out

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return f"--{self.name.replace('_', '-')}"

    def check(self, value: object) -> Any:
        """Return `value`, an integer as a Python int; raise SettingError if the option cannot have this value."""
        if value is None and (self.default is None or self.none_text is not None):
            return None
        if isinstance(self.values, range):
            besides = f", or None ({self.none_text!r}): asynchronous" if self.none_text else ""
            return checks.whole(self.name, value, self.values.start, self.values.stop - 1, besides=besides)
        if not isinstance(value, str) or value not in self.values:
            raise checks.refusal(self.name, value, f"one of {', '.join(self.values)}")
        return value

    def parse(self, text: str) -> Any:
        """Parse the text of the command line to a value; raise SettingError if the option cannot have this value."""
        if text == self.none_text:
            return None
        return self.check(checks.digits(text) if isinstance(self.values, range) else text)

    def text(self, value: object) -> str | None:
        """Return the text for a value on the command line; None if the option is left out for it."""
        return self.none_text if value is None else str(value)


STALENESS = Option(
    "staleness", 0, range(1 << 16), "S",
    "how many steps old the weights under a gradient may be; none: asynchronous, each gradient is an update of its own "
    "(default: what the program says, or 0)", "none",
)  # fmt: skip
LOCAL_STEPS = Option(
    "local_steps", 1, range(1, 1 << 32), "H",
    "steps that a worker takes on its shards before it contributes (default: 1)",
)  # fmt: skip
CODEC = Option(
    "codec", None, ("float16", "bfloat16", "int8"), "C",
    "how gradients travel: float16, bfloat16 or int8 (default: in full)",
)  # fmt: skip
CODEC_WEIGHTS = Option(  # without stochastic rounding, so not int8
    "codec_weights", None, ("float16", "bfloat16"), "C",
    "how weights come back: float16 or bfloat16 (default: in full)",
)  # fmt: skip
OPTIONS = (STALENESS, LOCAL_STEPS, CODEC, CODEC_WEIGHTS)
