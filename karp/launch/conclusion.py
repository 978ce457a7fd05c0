"""The end of a launch: what the terminal shows when all processes have ended, and the exit status."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from karp.launch.hands import Output
from karp.launch.options import Options
from karp.launch.processes import output
from karp.monitor import streams
from karp.monitor.terminal import Display
from karp.record.files import reason
from karp.record.paths import PREPARED
from karp.record.prepared_tables import remove_prepared

HELP = {"-h", "--help", "--version"}  # arguments with which a program does not train


def resume_command(options: Options, directory: Path, command: str) -> str:
    """Return the command line that resumes a run by this command of karp."""
    return shlex.join(["karp", command, "--resume", str(directory), "-n", str(options.workers)])


def conclude(
    summary: dict[str, Any] | None,
    children: Mapping[int, Output],
    leader: Output | None,
    options: Options,
    directory: Path,
    display: Display,
    status: int,
    interrupted: bool,
    completed: bool,
    command: str,
) -> int:
    """Show the run's summary and the leader's output; return the exit status.

    `summary` is None if the server has written none; `children` are the workers' newest processes, `leader` that whose
    output is shown, None if there is none or it was started elsewhere; `status` is the exit status so far, `completed`
    whether the leader's program has ended well, `command` what resumes the run. The status of a run that has not come
    to its end is never 0, unless the program was asked for its help.
    """
    go_on = resume_command(options, directory, command)
    if summary is None:
        return conclude_without_summary(display, status, interrupted, go_on)
    trained = "steps" in summary
    if interrupted and summary["finished"] and completed:
        status = 0  # nothing was left to be interrupted
    ended_well, asked_for_help = status == 0, not trained and bool(HELP & set(options.arguments))
    if ended_well and not trained and not asked_for_help:
        status = 1
        display.say(f"no worker trained: {options.program} ended without iterating over trainer.batches")
    elif ended_well and trained and not summary["finished"] and "missing" not in summary:
        status = 1
        display.say(f"{options.program} ended in every worker before the run did: it is at step {summary['steps']}")
    if ended_well and asked_for_help:
        display.close()
    else:
        display.conclude(summary, directory, failed=(status != 0 and not interrupted) or "missing" in summary)
    if ended_well and leader is not None:
        if why := show_output(leader):
            status = 1
            display.say(f"what the program printed cannot be shown ({why}): {leader.log}")
    elif interrupted and summary["finished"]:
        display.say(f"the training had ended, but not the program; to go on with that: {go_on}")
    elif interrupted:
        display.say(f"stopped after step {summary.get('steps', 0)}; to go on: {go_on}")
    if removed := sorted({f"logs/{child.log.name}" for child in children.values() if not child.log.is_file()}):
        status = status or 1
        display.say(f"somebody has removed {', '.join(removed)} of {directory} during the run")
    if "missing" in summary:
        status = status or 1
        display.say(f"to have all of its files once they can be written: {go_on}")
    if status == 0 and (why := remove_prepared(directory)):
        display.say(f"{directory / PREPARED} is not needed any more, but cannot be removed ({why})")
    return status


def conclude_without_summary(display: Display, status: int, interrupted: bool, go_on: str) -> int:
    """Say how to go on with a run whose server wrote no summary, unless it failed; return the exit status, never 0."""
    display.close()
    if interrupted:
        display.say(f"the server wrote no summary; to go on: {go_on}")
    elif status == 0:
        status = 1
        display.say(f"the server wrote no summary; to have one once it can: {go_on}")
    return status


def show_output(leader: Output) -> str:
    """Print what the leader's program has printed; return why that cannot be shown, or '' if it was shown."""
    try:
        streams.show(output(leader.log, leader.begin))
        return streams.output_failure()
    except OSError as error:
        return reason(error)
