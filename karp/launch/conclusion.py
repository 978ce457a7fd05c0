"""What a launch says when all its processes have ended, and its exit status."""

import shlex
from pathlib import Path
from typing import Any

from karp.launch.options import Options
from karp.launch.processes import Child, output
from karp.monitor import streams
from karp.monitor.terminal import Display
from karp.record.files import reason

HELP = {"-h", "--help", "--version"}  # what a program is asked that is not to train


def conclude(
    summary: dict[str, Any] | None,
    children: list[Child],
    options: Options,
    directory: Path,
    display: Display,
    status: int,
    interrupted: bool,
) -> int:
    """Show what came out, and what one worker has printed for all; returns the exit status.

    `status` is what it was until now. A run that has not come to its end does not end with 0, but for a program that
    was asked for its help.
    """
    go_on = shlex.join(["karp", "launch", "--resume", str(directory), "-n", str(options.workers)])
    if summary is None:
        display.close()
        if interrupted:
            display.say(f"the server wrote no summary; to go on: {go_on}")
        elif status == 0:
            status = 1
            display.say(f"the server wrote no summary; to have one once it can: {go_on}")
        return status
    trained = "steps" in summary
    speaker = speaker_of(children, summary["main"], trained)
    if interrupted and summary["finished"] and speaker is not None and speaker.ended_well:
        status = 0  # there was nothing left to be interrupted
    ended_well, asked = status == 0, not trained and bool(HELP & set(options.arguments))
    if ended_well and not trained and not asked:
        status = 1
        display.say(f"no worker trained: {options.program} ended without iterating over trainer.batches")
    elif ended_well and trained and not summary["finished"] and "missing" not in summary:
        status = 1
        display.say(f"{options.program} ended in every worker before the run did: it is at step {summary['steps']}")
    if ended_well and asked:
        display.close()
    else:
        display.conclude(summary, directory)
    if ended_well and speaker is not None:
        try:
            streams.show(output(speaker.log, speaker.begin))
            why = streams.lost()
        except OSError as error:
            why = reason(error)
        if why:
            status = 1
            display.say(f"what the program printed cannot be shown ({why}): {speaker.log}")
    elif interrupted and summary["finished"]:
        display.say(f"the training had ended, but not the program; to go on with that: {go_on}")
    elif interrupted:
        display.say(f"stopped after step {summary.get('steps', 0)}; to go on: {go_on}")
    if "missing" in summary:
        status = status or 1
        display.say(f"to have all of its files once they can be written: {go_on}")
    return status


def speaker_of(children: list[Child], main: int, trained: bool) -> Child | None:
    """Return the process whose output stands for all; None if it was started elsewhere, or none does.

    Where no server has named one (it died when all was over, or nobody trained) those that ended well are equal.
    """
    if main < 0:
        equal = (child.worker for child in children if child.ended_well and (child.joined or not trained))
        main = min(equal, default=-1)
    return next((child for child in children[::-1] if child.worker == main), None)
