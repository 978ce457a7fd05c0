"""Conversion of a program's arguments, settings, scores and losses to what messages carry, with their checks."""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any

from karp import nn, optim
from karp.autograd import Value, dropping
from karp.autograd.convert import plain_array
from karp.errors import ProgramError, SettingError
from karp.parameters import Parameters
from karp.protocol import best
from karp.protocol.fields import MOST_NUMBERS
from karp.protocol.settings import Settings
from karp.text import NAME_CHARACTERS, is_name, sendable


def parameters_of(model: nn.Module) -> Parameters:
    """Return a model's parameters; raises SettingError for anything but an `nn.Module`."""
    if not isinstance(model, nn.Module):
        raise SettingError(f"{model!r:.60} is no model; one is made like nn.MLP(4, [16], 2)")
    return model.parameters


def has_scores(evaluate: object) -> bool:
    """Return whether a run has scores: not for None; raises SettingError for anything else that cannot be called."""
    if evaluate is not None and not callable(evaluate):
        raise SettingError(f"evaluate is {evaluate!r:.60}; it must be a function, which is called once per epoch")
    return evaluate is not None


def settings_of(
    parameters: Parameters, optimizer: optim.Optimizer, outer: optim.Optimizer | None, **others: Any
) -> Settings:
    """Return the settings of this program's run; `others` are the further fields of `Settings`.

    Raises SettingError, naming the field, for a value that cannot be.
    """
    file = program_file()
    return Settings.from_dict({
        "program": program_name(),
        "program_sha256": "" if file is None else hashlib.sha256(file.read_bytes()).hexdigest(),
        "layout": parameters.layout.to_dict(),
        "weights_sha256": parameters.sha256(),
        "optimizer": optim.to_dict(optimizer),
        "outer": None if outer is None else optim.to_dict(outer),
        **others,
    })


def program_file() -> Path | None:
    """Return the file of this process's program; None in a session, a notebook and the like.

    For a folder that is run this is its `__main__.py`, for an archive the archive. The result does not depend on
    sys.argv or the current directory.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    candidates = [Path(main), Path(main).parent] if isinstance(main, str) else []
    return next((path for path in candidates if path.is_file()), None)


def program_name() -> str:
    """Return the name of this process's program: that of its file, archive or folder.

    Without a file it is 'session' if statements are typed in, as in a notebook, and 'python' for `python -c`.
    """
    path = program_file()
    if path is None:
        return "session" if hasattr(sys, "ps1") else "python"
    name = path.parent.name if path.name == "__main__.py" else path.name
    return sendable(name, NAME_CHARACTERS) or "python"


def scores(values: Mapping[str, Any] | float, keep_best: str | None = None) -> dict[str, float]:
    """Convert logged numbers or scores to a dict of floats, as messages carry them.

    A number without a name is called `score`. Raises ProgramError for a name that is not a line of text, a value that
    is not a number, for more numbers than a message takes, and if none has the name `keep_best`.
    """
    named = values if isinstance(values, Mapping) else {"score": values}
    if len(named) > MOST_NUMBERS:
        raise ProgramError(f"{len(named):,} numbers at once; at most {MOST_NUMBERS:,} can be logged")
    numbers: dict[str, float] = {}
    for key, value in named.items():
        name = str(key)
        if not is_name(name) or name in numbers:
            wanted = f"a text of 1 to {NAME_CHARACTERS} characters on one line, and there only once"
            raise ProgramError(f"the name of a number is {name!r:.60}; it must be {wanted}")
        numbers[name] = _number(name, value)
    if keep_best is not None and keep_best not in numbers:
        raise ProgramError(best.missing(keep_best, numbers))
    return numbers


def _number(name: str, value: object) -> float:
    """Return a number, a Value, or an array or list of one element as a float; raise ProgramError for anything else."""
    data = value.data if isinstance(value, Value) else value
    try:
        array = plain_array(data)
        if array.size == 1 and array.dtype.kind not in "SU":  # float would parse a text, which is no number
            return float(array.item())
    except (TypeError, ValueError, OverflowError):
        pass
    raise ProgramError(f"{name} is {value!r:.60}; only numbers can be logged, one under a name")


def loss_number(loss: Value) -> float:
    """Return a loss as a float; raise ProgramError unless it is a Value of one element."""
    if type(loss) is not Value:
        raise ProgramError(f"trainer.backward takes the loss, a Value, not {type(loss).__name__}")
    data = loss.data
    if data.__class__ is float:
        return data
    if data.size != 1:
        raise ProgramError(f"trainer.backward takes the mean over the batch, not a loss of shape {data.shape}")
    return data.item()  # type: ignore[no-any-return]


class Inspection:
    """Checks a loss for mistakes that raise nothing: a model that has changed, a dropout that dropped nothing.

    The check is needed at a program's first loss, and when a dropout was called without rng since the last check.
    """

    def __init__(self, model: nn.Module, parameters: Parameters) -> None:
        self.model = model
        self.parameters = parameters
        self.newest: int | None = None  # `dropping.newest` at the last check

    def check_loss(self, loss: Value) -> None:
        """Raise ProgramError if the loss depends on a dropout without `rng`; check the parameters at the first loss."""
        if self.newest is None:
            self.check_parameters(dict(self.model.named_parameters()))
        newest = dropping.newest
        if dropping.has_inactive_dropout(loss):
            raise ProgramError(
                "the loss depends on a dropout that was called without rng, so it dropped nothing: call"
                " model(x, trainer.rng), and have each module hand rng on. What is not to be trained on is computed in"
                " karp.no_grad()"
            )
        self.newest = newest

    def check_parameters(self, named: Mapping[str, Value]) -> None:
        """Raise ProgramError if parameters of the model were replaced, added or removed since the Trainer was made."""
        parameters = self.parameters
        if parameters.holds(named):
            return
        changed = [name for name in named if name not in parameters or parameters[name] is not named[name]]
        changed += [name for name in parameters if name not in named]
        what = short(changed) if changed else "the arrays of some"
        raise ProgramError(
            f"the parameters of the model have changed since the Trainer was made ({what}), so some would be neither"
            " trained nor saved: make all of the model before the Trainer"
        )


def status_of(error: BaseException | None) -> int:
    """Return the exit status with which Python ends after this exception; 0 for None."""
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 1
