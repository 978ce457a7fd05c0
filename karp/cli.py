"""The command line: `karp launch`, `karp worker`, `karp replay`, `karp keys`, `karp simulate`.

    karp launch -n 4 --run-dir runs/a  program.py --epochs 5 -n 2
    options of the command             PROGRAM    its arguments, whatever they look like

The line is cut behind PROGRAM before argparse sees it (`cut`): to argparse `--epochs` might abbreviate an option of its
own, and `--` or an empty argument might mean something. An option of the command that stands there all the same is
handed on like any other, with a line that says so.

Exit statuses: 0, the command has done what it is for; 1, it has failed, or what it had to print could not be written;
2, it cannot be done as it was asked for; 128 and the signal's number where it was interrupted. `karp worker` ends with
its program's. A reader that has gone, of standard output or errors, changes none of them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from karp import __version__
from karp.errors import KarpError, SettingError
from karp.limits import DEAD_SECONDS
from karp.monitor import streams

DESCRIPTION = """\
karp trains multi-layer perceptrons with its own autograd engine, in one process or in many.

A program is a Python file with an ordinary training loop (see the README). `python program.py` trains in one
process; `karp launch -n 4 program.py` starts a parameter server and four workers that run the same file."""


def parser() -> tuple["Command", "Commands"]:
    """Return the parser of the command line, and the action whose `choices` map each command to its parser."""
    top = Command("karp", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"karp {__version__}", help="say which karp this is")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_launch(commands)
    add_worker(commands)
    add_replay(commands)
    add_keys(commands)
    add_simulate(commands)
    return top, commands


def parse(line: list[str]) -> argparse.Namespace:
    """Parse a command line.

    Prints a note if the program is handed options of the command. Raises SystemExit where argparse does, after a help
    or an error, and SettingError for a required option that stands after PROGRAM instead of before it.
    """
    top, commands = parser()
    command = commands.choices.get(line[0]) if line else None
    if command is None or "program" not in command.positionals:
        return top.parse_args(line)
    words, arguments = command.cut(line[1:])
    for names in command.needed:
        behind = [word for word in arguments if word.startswith(names)]
        if behind and not any(word.startswith((*names, "--resume", "-h", "--help")) for word in words):
            raise SettingError(
                f"karp {line[0]} lacks {names[0]}: {behind[0]} follows {words[-1]}, and all that does is handed to the "
                f"program; put {names[0]} before it"
            )
    options = top.parse_args([line[0], *words])
    options.arguments = arguments
    if own := command.own_among(arguments):
        are = "is handed to it" if len(own) == 1 else "are handed to it"
        print(
            f"karp: {' and '.join(own)} after {words[-1]} {are}; the options of karp {line[0]} stand before it",
            file=sys.stderr,
        )
    return options


class Command(argparse.ArgumentParser):
    """The parser of a command, or of all commands, which finds where the arguments of PROGRAM begin."""

    def __init__(self, name: str | None = None, needed: Sequence[tuple[str, ...]] = (), **others: Any) -> None:
        self.needed = needed  # the names of each option that must be given
        self.valued: set[str] = set()  # the options with a value
        self.long: set[str] = set()  # all options that begin with two dashes
        self.positionals: list[str] = []
        others |= {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(others.pop("prog", name), **others)

    def add_argument(self, *names: Any, **others: Any) -> argparse.Action:
        action = super().add_argument(*names, **others)
        if not action.option_strings:
            self.positionals.append(action.dest)
        elif action.nargs != 0:
            self.valued |= set(action.option_strings)
        if others.get("action") not in ("help", "version"):
            self.long |= {name for name in action.option_strings if name.startswith("--")}
        return action

    def own_among(self, arguments: list[str]) -> list[str]:
        """Return the long options of this command that stand among the arguments of its PROGRAM.

        These may be meant for the program, which may have options of the same names; so nothing is refused.
        """
        end = arguments.index("--") if "--" in arguments else len(arguments)
        return [name for word in arguments[:end] if (name := word.split("=")[0]) in self.long]

    def add_program(self, help: str, **others: Any) -> None:
        """Add PROGRAM and its arguments, which argparse shows in the help but never parses."""
        self.add_argument("program", metavar="PROGRAM", help=help, **others)
        self.add_argument("arguments", metavar="ARGS", nargs="*", default=[], help="handed to PROGRAM as they are")

    def cut(self, line: list[str]) -> tuple[list[str], list[str]]:
        """Split a line after PROGRAM: return the words up to it, and its arguments.

        >>> command = Command()
        >>> _ = command.add_argument("-n"), command.add_program("a file")
        >>> command.cut(["-n", "4", "program.py", "-n", "--", ""])
        (['-n', '4', 'program.py'], ['-n', '--', ''])
        """
        left, at, options = self.positionals.index("program") + 1, 0, True
        while at < len(line) and left:
            word = line[at]
            if options and word in self.valued:
                at += 1  # its value
            elif options and word == "--":
                options = False
            elif not options or not word.startswith("-") or word == "-":
                left -= 1
            at += 1
        return line[:at], line[at:]


Commands = Any  # argparse has no public name for what add_subparsers returns


def add_launch(commands: Commands) -> None:
    command = commands.add_parser(
        "launch",
        help="run a program with N workers on this machine",
        description="Start a parameter server and N workers on this machine, each running PROGRAM.\n"
        "What follows PROGRAM is handed to it as it is: options of karp stand before it.",
        needed=[("-n", "--workers")],
        epilog="examples:\n  karp launch -n 4 workers/digits.py --epochs 5\n  karp launch --resume runs/my-run -n 8",
    )
    add = command.add_argument
    add("-n", "--workers", type=int, metavar="N", help="worker processes to start (required, but for --resume)")
    add("--run-dir", metavar="DIR", help="where the run's files go (default: a fresh folder under runs/)")
    add("--resume", metavar="DIR", help="go on with the run in DIR, from its newest checkpoint; no PROGRAM is needed")
    add("--changed", action="store_true", help="with --resume: go on though the program's file has changed, as after a "
        "repair; settings and data must be the same, and the record says from which step on it ran")  # fmt: skip
    add("--threads", type=int, metavar="T", help="BLAS threads of each worker (default: 1)")
    add_consistency(command)
    add("--max-restarts", type=int, metavar="K", help="how often a worker that dies is started again (default: 3)")
    add("--checkpoint-every", type=float, metavar="S", help="seconds between checkpoints; 0: every step (default: 10)")
    add("--keep", type=int, metavar="K", help="how many checkpoints are kept (default: 3)")
    add(
        "--on-nonfinite",
        choices=["stop", "skip"],
        help="a shard whose gradient is not finite twice: stop the run, or leave the shard out (default: stop)",
    )
    add(
        "--exchange",
        choices=["auto", "zeromq"],
        help="auto: workers on the server's host share memory with it, but for runs with staleness or codecs; zeromq: "
        "frames over tcp (default: auto)",
    )
    add("--same-kernels", action=argparse.BooleanOptionalAction, help="refuse workers whose NumPy, BLAS kernels or "
        "instruction sets differ from those of the first (default: say so)")  # fmt: skip
    add("--host", metavar="ADDRESS", help="the IP address the server listens on (default: 127.0.0.1); any that is not "
        "loopback needs keys, which are made for the run unless --keys names some")  # fmt: skip
    add("--port", type=int, metavar="PORT", help="the port it listens on (default: a free one)")
    add("--keys", metavar="DIR", help="lasting keys, made with `karp keys DIR`")
    command.add_program("a Python file with a karp.Trainer", nargs="?")
    command.set_defaults(command=run_launch)


def add_consistency(command: argparse.ArgumentParser) -> None:
    """Add the options that stand for arguments of Trainer, on which all workers of a run must agree."""
    from karp.consistency import OPTIONS

    for option in OPTIONS:
        command.add_argument(option.flag, metavar=option.metavar, help=option.help)


def run_launch(options: argparse.Namespace) -> int:
    from karp.consistency import OPTIONS
    from karp.launch import start
    from karp.launch.options import Options

    names = ["workers", "threads", "max_restarts", "checkpoint_every", "keep", "on_nonfinite", "exchange"]
    names += ["same_kernels", "host", "port", "keys", *(option.name for option in OPTIONS)]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.resume is not None:
        if options.program is not None or options.run_dir is not None:
            raise SettingError("--resume goes on with the program and the directory of its run: name no other")
        return start.resume(options.resume, given, options.changed)
    if options.changed:
        raise SettingError("--changed goes with --resume DIR: a run that begins has the program that it begins with")
    if options.workers is None or options.program is None:
        missing = "a PROGRAM" if options.workers is not None else "-n N" if options.program else "-n N and a PROGRAM"
        raise SettingError(f"karp launch needs {missing}, or --resume DIR; see karp launch --help")
    return start.launch(Options(program=options.program, arguments=options.arguments, **given), options.run_dir)


def add_worker(commands: Commands) -> None:
    command = commands.add_parser(
        "worker",
        help="join a run that is under way",
        description="Run one more worker of a run, at any time. The run's directory says all that is needed: server,\n"
        "keys, program, arguments. Where it cannot be seen the server is named, and PROGRAM must be the run's, with\n"
        "the same arguments. Ctrl-C leaves without harm: what this worker was at goes to others.",
        needed=[("--server", "--run-dir")],
        epilog=f"A silent worker is taken for lost after {DEAD_SECONDS:g} s without a heartbeat, and one whose lease\n"
        "takes several times as long as the others' has it given to another.\n\n"
        "examples:\n  karp worker --run-dir runs/my-run\n"
        "  karp worker --server tcp://192.0.2.1:5555 --keys keys/ program.py",
    )
    add = command.add_argument
    add("--run-dir", metavar="DIR", help="the run's directory, as karp launch says it; no PROGRAM is needed")
    add("--server", metavar="ADDRESS", help="tcp://HOST:PORT, those of karp launch --host and --port (default: as DIR "
        "has it)")  # fmt: skip
    add("--keys", metavar="DIR", help="the keys of a server beyond this machine (default: as the run's DIR has them)")
    add("--threads", type=int, metavar="T", help="BLAS threads (default: the run's, or 1)")
    add_consistency(command)
    command.add_program("the run's program", nargs="?")
    command.set_defaults(command=run_worker)


def run_worker(options: argparse.Namespace) -> int:
    from karp.consistency import OPTIONS
    from karp.launch import join

    names = ["threads", *(option.name for option in OPTIONS)]
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    join.join(options.run_dir, options.server, options.keys, changes, options.program, options.arguments)


def add_replay(commands: Commands) -> None:
    command = commands.add_parser(
        "replay",
        help="repeat a recorded run to the same bits",
        description="Run the program of the run in DIR once more, in one process, and apply its contributions in the\n"
        "order and with the weights that the run has recorded, so that even a run with staleness ends with\n"
        "the same bits. Prints both hashes; the exit status is 0 if they are equal, else 1.",
        epilog="examples:\n  karp replay runs/my-run\n  karp replay runs/alone",
    )
    command.add_argument("directory", metavar="DIR", help="the run's directory")
    command.add_program("needed if the record names none", nargs="?")
    command.set_defaults(command=run_replay)


def run_replay(options: argparse.Namespace) -> int:
    from karp.launch import replay

    return replay.replay(options.directory, options.program, options.arguments)


def add_keys(commands: Commands) -> None:
    command = commands.add_parser(
        "keys",
        help="make lasting keys for servers beyond this machine",
        description="Make CURVE keys in DIR, readable by you alone: `karp launch --keys DIR` and\n"
        "`karp worker --keys DIR` use them. Copy the file to where workers run.",
    )
    command.add_argument("directory", metavar="DIR", help="made if it is not there")
    command.set_defaults(command=run_keys)


def run_keys(options: argparse.Namespace) -> int:
    from karp.record.files import reason
    from karp.transport import keys

    directory = Path(options.directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(f"the directory {directory} cannot be made: {reason(error)}") from None
    keys.write(keys.make(), directory / keys.FILE)
    print(f"keys written to {directory / keys.FILE}")
    return 0


def add_simulate(commands: Commands) -> None:
    command = commands.add_parser(
        "simulate",
        help="train with thousands of workers that do not exist",
        description="Run the real server and N real workers on a virtual clock and an imaginary network, training a\n"
        "small linear model, until the target is reached or the steps are done; then say how long it took,\n"
        "how stale the gradients were and what travelled. Seconds are those of the virtual clock. One seed\n"
        "is one history.\n\n"
        "With --schedules, run so many small clusters full of faults instead (kills, restarts of the server,\n"
        "partitions, lost, doubled and damaged messages, gradients that are not finite), and check after\n"
        "every event that each shard counts once, none is lost and the weights are the bits they should be.",
        epilog="examples:\n"
        "  karp simulate --workers 10000 --straggler 0.05 --staleness 3 --picture curve.png\n"
        "  karp simulate --schedules 1000",
    )
    add = command.add_argument
    add("-n", "--workers", type=int, metavar="N", help="workers (default: 100)")
    add("--shards", type=int, metavar="K", help="shards of a step (default: one for each worker)")
    add("--rows", type=int, metavar="R", help="samples of a shard (default: 8)")
    add("--steps", type=int, metavar="T", help="steps at most (default: 100)")
    add("--target", type=float, metavar="LOSS", help="end when the loss is down to this (default: when 2 %% of the way "
        "to the lowest are left)")  # fmt: skip
    add("--seed", type=int, metavar="S", help="of everything that is left to chance (default: 0)")
    add("--staleness", metavar="S", help="how many steps old the weights under a gradient may be; none: asynchronous "
        "(default: 0)")  # fmt: skip
    add("--lr", type=float, metavar="RATE", help="learning rate of SGD (default: 0.1)")
    add("--momentum", type=float, metavar="M", help="and its momentum (default: 0)")
    add("--compute", type=float, metavar="SEC", help="seconds that a shard takes (default: 0.1)")
    add("--spread", type=float, metavar="F", help="their standard deviation, as a share of them (default: 0.1)")
    add("--latency", type=float, metavar="SEC", help="seconds that a message takes one way (default: 0.002)")
    add("--straggler", type=float, metavar="F", help="share of the workers that are slow (default: 0)")
    add("--factor", type=float, metavar="X", help="times as long that a slow one takes (default: 10)")
    add("--loss", type=float, metavar="F", help="share of the messages that are lost (default: 0)")
    add("--duplicate", type=float, metavar="F", help="share of the messages that come twice (default: 0)")
    add("--crash", type=float, metavar="RATE", help="crashes of each worker in a second, each followed by a restart "
        "(default: 0)")  # fmt: skip
    add("--picture", metavar="FILE", help="draw the curve of the loss, as PNG, PDF or SVG (needs matplotlib)")
    add("--json", metavar="FILE", help="write all figures and the curve")
    add("--schedules", type=int, metavar="COUNT", help="run so many small clusters with faults, from --seed on")
    command.set_defaults(command=run_simulate)


def run_simulate(options: argparse.Namespace) -> int:
    from karp.consistency import STALENESS
    from karp.simulate import report, study

    given = {name: getattr(options, name) for name in study.Study.__slots__ if getattr(options, name) is not None}
    if options.schedules is not None:
        return check_schedules(options.schedules, given, [options.picture, options.json])
    if "staleness" in given:
        given["staleness"] = STALENESS.parse(given["staleness"])
    outcome = study.run(study.Study(**given))
    print("\n".join(report.summary_lines(outcome)))
    if options.json is not None:
        report.write_json(outcome, options.json)
    if options.picture is not None:
        report.draw_picture(outcome, options.picture)
    else:
        print("\n".join(["", *report.curve_lines(outcome)]))
    return 0


def check_schedules(schedules: int, given: dict[str, Any], files: list[str | None]) -> int:
    """Simulate small clusters with faults, and print the result; return exit status 1 if an invariant does not hold.

    Else the status is 0. Raises SettingError for a number below 1, and for options beside the seed.
    """
    from karp.simulate import Violation, check_many

    if schedules < 1 or set(given) - {"seed"} or any(files):
        raise SettingError("--schedules takes a number of at least 1 and, beside it, --seed alone")
    first = given.get("seed", 0)
    try:
        events, counts = check_many(range(first, first + schedules))
    except Violation as error:
        print(f"karp: {error}", file=sys.stderr)
        return 1
    faults = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    print(f"{schedules} schedules held over {events:,} events, with these faults: {faults or 'none'}")
    return 0


def perform(line: list[str]) -> int:
    """Run the command of a command line; return the exit status."""
    try:
        options = parse(line)
        status: int = options.command(options)
    except SystemExit as error:  # argparse has printed its help or error
        return error.code if isinstance(error.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except KarpError as error:
        print(f"karp: {error}", file=sys.stderr)
        return 2
    return status


def main(line: Sequence[str] | None = None) -> int:
    """Run the `karp` command; return its exit status."""
    with streams.command():
        status = perform(list(sys.argv[1:] if line is None else line))
        if (why := streams.output_failure()) and status == 0:
            print(f"karp: what was to be printed could not be written: {why}", file=sys.stderr)
            status = 1
        return status


if __name__ == "__main__":
    sys.exit(main())
