"""Where a run's server is, for workers that see the run's directory."""

from pathlib import Path

import pytest

from karp.errors import DataError
from karp.record.server_address import FILE, publish, published, withdraw


def test_it_is_there_until_it_is_withdrawn_and_for_its_owner_alone(tmp_path: Path) -> None:
    publish(tmp_path, "tcp://127.0.0.1:5", "1f", "keys")
    assert ("tcp://127.0.0.1:5", "1f", "keys") == published(tmp_path)
    assert 0o600 == (tmp_path / FILE).stat().st_mode & 0o777
    publish(tmp_path, "tcp://127.0.0.1:6", "2f", "")  # a launch that goes on with a run whose launcher was killed
    assert ("tcp://127.0.0.1:6", "2f", "") == published(tmp_path)
    withdraw(tmp_path)
    withdraw(tmp_path)
    with pytest.raises(DataError, match=f"no run is under way in {tmp_path}, so no worker can join it"):
        published(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "{}", '{"address": 5, "run": "", "keys": ""}', '{"address": "a"}', "[" * 100_000]
)
def test_what_is_damaged_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(DataError, match=rf"^{tmp_path / FILE} cannot be read, or is damaged: "):
        published(tmp_path)
