"""A worker's conversation with its server: what it says of an exception, and of itself where nobody else does."""

import numpy as np
import pytest

from karp import Value, nn
from karp.environment import LEASH, NAMES, SERVER, TAKEN
from karp.errors import SettingError
from karp.protocol.worker import Worker
from karp.trainer.replay import ReplayLink
from karp.trainer.session import Session, text_of


def test_the_traceback_of_what_karp_refuses_ends_in_the_program() -> None:
    with pytest.raises(SettingError) as raised:
        nn.cross_entropy(Value([[0.0, 0.0]]), np.array([7]))
    *_, place, code, error = [line for line in text_of(raised.value).splitlines() if set(line) - set(" ^~")]
    assert "test_session.py" in place
    assert "nn.cross_entropy(Value([[0.0, 0.0]]), np.array([7]))" == code.strip()
    assert error.startswith("karp.errors.SettingError: cross_entropy: class index 7")


def test_the_traceback_of_any_other_error_is_whole() -> None:
    with pytest.raises(TypeError) as raised:
        nn.MLP(*[None] * 99)
    assert text_of(raised.value).startswith("Traceback (most recent call last):")
    with pytest.raises(SettingError) as refused:
        nn.MLP(3.0, [1], 1)  # type: ignore[arg-type]
    refused.value.__cause__ = ValueError("the cause")
    assert "ValueError: the cause" in text_of(refused.value)


@pytest.mark.parametrize(
    ("variables", "said"),
    [({}, False), ({SERVER: "tcp://h:1"}, True), ({SERVER: "tcp://h:1", LEASH: "5"}, False), ({LEASH: "5"}, False)],
)
def test_only_a_worker_that_no_launcher_has_started_says_when_it_joins(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: bool
) -> None:
    for name in (*NAMES, TAKEN):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    session = Session(Worker(np.zeros(3)), ReplayLink.__new__(ReplayLink))
    assert said == (session.display.stream is not None) == (not session.joined)
