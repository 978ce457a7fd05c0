"""Launching a run, or resuming one: what can be refused before any process is started is refused here."""

from pathlib import Path
from typing import Any

from karp.errors import RecordError, SettingError
from karp.launch.options import Options
from karp.launch.recorded import Recorded, enter, options_of
from karp.launch.run import Launch
from karp.monitor.terminal import Display
from karp.record import files
from karp.record.paths import check_unused, fresh_directory
from karp.record.prepared_tables import check_prepared


def launch(options: Options, run_dir: str | None, display: Display | None = None, elsewhere: bool = False) -> int:
    """Launch a run, wait for its end, and return the exit status; `display` shows it, if it is not to be the usual one.

    If `elsewhere`, only the server is started here.

    Raises SettingError or RecordError, before any process is started, if the run cannot be launched.
    """
    options.check()
    if run_dir == "":
        raise SettingError("--run-dir is empty: pass a directory, or leave it out")
    directory = Path(run_dir) if run_dir is not None else fresh_directory(options.program)
    check_unused(directory)
    try:
        make_logs(directory)
        options.write(directory)
    except OSError as error:
        raise RecordError(f"the run directory {directory} cannot be made: {files.reason(error)}") from None
    return Launch(options, directory.resolve(), resume=False, display=display, elsewhere=elsewhere).run()


def resume(run_dir: str, changes: dict[str, Any], changed: bool = False, elsewhere: bool = False) -> int:
    """Resume the run in a directory, with any number of workers, and return the exit status.

    `changes` are fields of `Options`; `changed` permits a program whose file has changed; if `elsewhere`, only the
    server is started here. Raises SettingError, DataError or RecordError, before any process is started, if the run
    cannot be resumed.
    """
    directory = Path(run_dir).resolve()
    options, cwd = options_of(directory, changes)
    settings = Recorded.read(directory)
    settings.check(directory, options, changes, changed)
    enter(cwd)
    changed_tables = check_prepared(directory)
    try:
        make_logs(directory)
    except OSError as error:
        raise RecordError(f"the run directory {directory} cannot be written: {files.reason(error)}") from None
    resumed = Launch(options, directory, True, settings.shards, changed, elsewhere=elsewhere)
    for line in changed_tables:
        resumed.display.say(line)
    return resumed.run()


def make_logs(directory: Path) -> None:
    """Create the folder of the processes' logs; raises OSError if it cannot be written to."""
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    (directory / "logs" / "server.log").open("ab").close()
