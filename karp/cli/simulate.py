"""`karp simulate`: workers that do not exist."""

import argparse
import sys
from typing import Any

from karp.cli.command import Commands
from karp.errors import SettingError


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
        "every event that each shard counts once, none is lost and the weights are the bits they should be.\n\n"
        "The study `goodput` compares which share of a cluster's computation reaches the weights, with ever more\n"
        "failures: karp synchronous, with backup leases, staleness and local steps, and restarts of all workers.\n"
        "It takes --workers (else 100, then 1,000), --seed, --picture and --json.",
        epilog="examples:\n"
        "  karp simulate --workers 10000 --straggler 0.05 --staleness 3 --picture curve.png\n"
        "  karp simulate --schedules 1000\n"
        "  karp simulate goodput --picture goodput.svg",
    )
    add = command.add_argument
    add("study", nargs="?", metavar="goodput", choices=["goodput"], help="compare what failures cost in each mode")
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
    add("--exchange", metavar="WHO", help="ends a step: the server (default), or with `workers` the last of them to "
        "arrive, in shared memory")  # fmt: skip
    add("--message", type=float, metavar="SEC", help="seconds that a message takes the server, one after the other, or "
        "arriving at a step takes a worker (default: 0)")  # fmt: skip
    add("--adding", type=float, metavar="SEC", help="seconds that adding a gradient takes who ends a step (default: 0)")
    add("--update", type=float, metavar="SEC", help="seconds that updating the weights takes it (default: 0)")
    add("--cores", type=int, metavar="C", help="cores that the workers share (default: one for each)")
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
    if options.study == "goodput":
        return compare_goodput(given, options)
    if options.schedules is not None:
        return check_schedules(options.schedules, given, [options.picture, options.json])
    if "staleness" in given:
        given["staleness"] = STALENESS.parse(given["staleness"])
    outcome = study.run(study.Study(**given))
    print("\n".join(report.summary_lines(outcome)))
    if options.json is not None:
        report.write_json(outcome.to_dict(), options.json)
    if options.picture is not None:
        report.draw_picture(outcome, options.picture)
    else:
        print("\n".join(["", *report.curve_lines(outcome)]))
    return 0


def compare_goodput(given: dict[str, Any], options: argparse.Namespace) -> int:
    """Run the study of the goodput, and print its table line by line as the runs end.

    Raises SettingError for options that it does not take.
    """
    from karp.simulate import goodput, goodput_report, report

    if set(given) - {"workers", "seed"} or options.schedules is not None:
        raise SettingError("goodput takes --workers, --seed, --picture and --json alone: its other numbers are fixed")
    workers = (given["workers"],) if "workers" in given else goodput.WORKERS
    figure = None if options.picture is None else report.new_figure()  # before minutes of computing
    bands = []
    for band in goodput.study(workers, given.get("seed", 0)):
        bands.append(band)
        print(goodput_report.text_of(band), end="", flush=True)
    if options.json is not None:
        report.write_json(goodput.to_dict(bands), options.json)
    if figure is not None:
        goodput_report.draw(bands, figure)
        report.write_picture(figure, options.picture)
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
