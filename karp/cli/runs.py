"""The commands around a run: `karp launch`, `karp server`, `karp worker`, `karp replay`, `karp keys`."""

import argparse
import os
from pathlib import Path

from karp.cli.command import Command, Commands, add_kernels
from karp.errors import SettingError
from karp.limits import DEAD_SECONDS
from karp.text import counted


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
    add("-n", "--workers", type=count_of_workers, metavar="N", help="worker processes to start (required, but for "
        "--resume); with --on ray also N:M, for N workers and up to M as soon as Ray has room")  # fmt: skip
    add_run(command)
    add("--host", metavar="ADDRESS", help="the IP address the server listens on (default: 127.0.0.1); any that is not "
        "loopback needs keys, which are made for the run unless --keys names some")  # fmt: skip
    add("--port", type=int, metavar="PORT", help="the port it listens on (default: a free one)")
    add("--on", metavar="WHERE", help="host: this machine; ray: the Ray cluster at RAY_ADDRESS, one that runs here, or "
        "else one of this machine; ray://HOST:PORT: by Ray's client (default: host). The run's directory must be on "
        "storage that the nodes share")  # fmt: skip
    add("--working-dir", metavar="DIR", type=os.path.abspath, help="with --on ray: have Ray send DIR to the nodes, 512 "
        "MiB at most and nothing that git ignores, and run the program in it there (default: the nodes share the "
        "storage that the program is on)")  # fmt: skip
    add("--cpus-per-worker", type=int, metavar="C", help="CPUs that Ray reserves for a worker (default: its threads)")
    command.set_defaults(command=run_launch)


def add_server(commands: Commands) -> None:
    command = commands.add_parser(
        "server",
        help="serve a run whose workers are started elsewhere",
        description="Start the parameter server of a run on this host, and no worker: Slurm, Kubernetes or a shell\n"
        "start `karp worker` on any host. The run begins when N workers have joined, or after a minute with\n"
        "those that have; more may come and go at any time.",
        needed=[("-n", "--workers")],
        epilog="examples:\n  karp server -n 8 --bind tcp://0.0.0.0:0 --run-dir shared/run program.py\n"
        "  karp worker --run-dir shared/run --wait 60       # 8 times, on hosts that see the directory\n"
        "  karp server --resume shared/run --bind tcp://0.0.0.0:0",
    )
    add = command.add_argument
    add("-n", "--workers", type=int, metavar="N", help="workers that the run begins with (required, but for --resume)")
    add("--bind", metavar="ADDRESS", help="tcp://HOST:PORT to listen at: HOST an address or name of this machine, or "
        "0.0.0.0 for all; PORT 0 takes a free one (default: tcp://127.0.0.1:0). Beyond loopback the run has keys, made "
        "for it unless --keys names some")  # fmt: skip
    add_run(command)
    command.set_defaults(command=run_server)


def add_run(command: Command) -> None:
    """Add the options that a run has wherever its workers are started, and PROGRAM."""
    add = command.add_argument
    add("--run-dir", metavar="DIR", help="where the run's files go (default: a fresh folder under runs/)")
    add("--resume", metavar="DIR", help="go on with the run in DIR, from its newest checkpoint; no PROGRAM is needed")
    add("--changed", action="store_true", help="with --resume: go on though the program's file has changed, as after a "
        "repair; settings and data must be the same, and the record says from which step on it ran")  # fmt: skip
    add("--threads", type=int, metavar="T", help="BLAS threads of each worker (default: 1)")
    add_kernels(command)
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
    add("--keys", metavar="DIR", help="lasting keys, made with `karp keys DIR`")
    command.add_program("a Python file with a karp.Trainer", nargs="?")


def add_consistency(command: argparse.ArgumentParser) -> None:
    """Add the options that stand for arguments of Trainer, on which all workers of a run must agree."""
    from karp.consistency import OPTIONS

    for option in OPTIONS:
        command.add_argument(option.flag, metavar=option.metavar, help=option.help)


def run_launch(options: argparse.Namespace) -> int:
    options.most_workers = None if options.workers is None else 0
    if isinstance(options.workers, tuple):
        options.workers, options.most_workers = options.workers
    return start_run(options, "launch")


def count_of_workers(text: str) -> int | tuple[int, int]:
    """Return the number of workers that a text gives, or for "N:M" the least and the most.

    >>> count_of_workers("4"), count_of_workers("8:64")
    (4, (8, 64))
    """
    least, colon, most = text.partition(":")
    try:
        return (int(least), int(most)) if colon else int(least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers: N, or N:M with --on ray") from None


def run_server(options: argparse.Namespace) -> int:
    from karp.launch.credentials import resolve

    options.host = options.port = None
    if options.bind is not None:
        options.host, options.port = resolve(options.bind, "--bind", least=0)
    return start_run(options, "server")


def start_run(options: argparse.Namespace, command: str) -> int:
    """Start or resume a run by `karp launch` or `karp server`; return the exit status."""
    from karp.consistency import OPTIONS
    from karp.launch import start
    from karp.launch.options import Options

    elsewhere = command == "server"
    names = ["workers", "threads", "max_restarts", "checkpoint_every", "keep", "on_nonfinite", "exchange"]
    names += [] if elsewhere else ["on", "cpus_per_worker", "most_workers", "working_dir"]
    names += ["same_kernels", "kernels", "host", "port", "keys", *(option.name for option in OPTIONS)]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if elsewhere:
        given |= {"on": "host", "most_workers": 0, "working_dir": ""}  # whatever a run that is resumed had
    if options.resume is not None:
        if options.program is not None or options.run_dir is not None:
            raise SettingError("--resume goes on with the program and the directory of its run: name no other")
        return start.resume(options.resume, given, options.changed, elsewhere)
    if options.changed:
        raise SettingError("--changed goes with --resume DIR: a run that begins has the program that it begins with")
    if options.workers is None or options.program is None:
        missing = "a PROGRAM" if options.workers is not None else "-n N" if options.program else "-n N and a PROGRAM"
        raise SettingError(f"karp {command} needs {missing}, or --resume DIR; see karp {command} --help")
    launched = Options(program=options.program, arguments=options.arguments, **given)
    return start.launch(launched, options.run_dir, elsewhere=elsewhere)


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
    add("--wait", type=float, metavar="S", default=0.0, help="seconds to wait for a run that has not begun, or a host "
        "that has no name yet (default: 0)")  # fmt: skip
    add("--threads", type=int, metavar="T", help="BLAS threads (default: the run's, or 1)")
    add_kernels(command)
    add_consistency(command)
    command.add_program("the run's program", nargs="?")
    command.set_defaults(command=run_worker)


def run_worker(options: argparse.Namespace) -> int:
    from karp.consistency import OPTIONS
    from karp.launch import join

    names = ["threads", "kernels", *(option.name for option in OPTIONS)]
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    where = options.run_dir, options.server, options.keys
    join.join(*where, changes, options.program, options.arguments, options.wait)


def add_scale(commands: Commands) -> None:
    command = commands.add_parser(
        "scale",
        help="have fewer or more workers in a run that is under way",
        description="Ask the launcher of a run that trains for N workers. More start at once, on Ray as soon as it\n"
        "has room; of too many, those with the highest numbers end when they have sent what they compute. Nothing is\n"
        "restarted or computed again, and the weights are the same bits.",
        epilog="examples:\n  karp scale --run-dir runs/my-run 16\n"
        "  karp scale --keys keys/ tcp://192.0.2.1:5555 16",
    )
    add = command.add_argument
    add("--run-dir", metavar="DIR", help="the run's directory, as karp launch says it")
    add("--keys", metavar="DIR", help="the keys of a server beyond this machine (default: as the run's DIR has them)")
    add("server", metavar="ADDRESS", nargs="?", help="tcp://HOST:PORT of the server, where DIR cannot be seen")
    add("workers", metavar="N", type=int, help="how many workers the launcher is to have")
    command.set_defaults(command=run_scale)


def run_scale(options: argparse.Namespace) -> int:
    from karp.launch.scale import scale

    scale(options.server, options.run_dir, options.keys, options.workers)
    print(f"the run's launcher is asked for {counted(options.workers, 'worker')}")
    return 0


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
