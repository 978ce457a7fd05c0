"""python -m chaos: what scripts/chaos.sh calls."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from chaos import watch
from chaos.run import Reference, Run, as_json, run_undisturbed
from chaos.scenario import KINDS, draw_scenario

OPTIMIZERS = ["sgd", "adam"]


def main() -> int:
    """Run the scenarios that the command line asks for, or the bench of strangers; return the exit status."""
    parser = ArgumentParser("chaos.sh", description="Break runs of digits in every way, and compare their bits.")
    parser.add_argument("--schedules", type=int, default=200, help="how many runs are disturbed (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="the first schedule's; the others count on (default: 0)")
    parser.add_argument("--epochs", type=int, default=10, help="of each run, 23 steps each (default: 10)")
    parser.add_argument("--jobs", type=int, default=2, help="schedules at a time (default: 2)")
    parser.add_argument("--json", metavar="FILE", help="write one object per schedule, a line each")
    parser.add_argument("--strangers", action="store_true", help="measure instead what strangers cost a run")
    options = parser.parse_args()
    if options.strangers:
        from chaos import strangers

        return strangers.bench(options.json)
    return run_scenarios(options)


def run_scenarios(options: Namespace) -> int:
    """Run every scenario and print the table; return the exit status, 0 if every run has survived."""
    folder = Path(tempfile.mkdtemp(prefix="karp-chaos-"))
    before = watch.shared_memory()
    references = {name: run_undisturbed(folder / name, options.epochs, name) for name in OPTIMIZERS}
    results: list[dict[str, Any]] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        seeds = range(options.seed, options.seed + options.schedules)
        for result in pool.map(lambda seed: run_scenario(seed, folder, references, options.epochs), seeds):
            results.append(result)
            if options.json:
                with open(options.json, "w" if len(results) == 1 else "a") as file:
                    file.write(json.dumps(result) + "\n")
    print(table(results))
    if left := watch.abandoned_memory(before):
        print(f"left in /dev/shm: {sorted(left)}")
    failed = [result for result in results if not result["ok"]]
    if not failed:
        shutil.rmtree(folder)
    return 1 if failed or left else 0


def run_scenario(seed: int, folder: Path, references: dict[str, Reference], epochs: int) -> dict[str, Any]:
    """Run the scenario with this seed; if it fails, say how to repeat it and keep its files."""
    reference = next(iter(references.values()))
    scenario = draw_scenario(seed, reference.steps)
    directory = folder / f"run-{seed}"
    outcome = Run(scenario, directory, references[scenario.optimizer]).run()
    result = as_json(scenario, outcome)
    kinds = "; ".join(outcome.injected) or "nothing"
    print(f"seed {seed}: {'ok' if result['ok'] else 'FAILED'} in {outcome.seconds:.1f} s  ({kinds})", flush=True)
    if result["ok"]:
        for path in folder.glob(f"run-{seed}.*"):
            path.unlink()
        shutil.rmtree(directory)
    else:
        for problem in outcome.problems:
            print(f"    {problem}")
        print(f"    to repeat: scripts/chaos.sh --schedules 1 --seed {seed} --epochs {epochs}")
        print(f"    its files: {directory}*", flush=True)
    return result


def table(results: list[dict[str, Any]]) -> str:
    """Return a table of the faults by kind, and the totals.

    The failure of a run counts against every kind of fault that was injected into it.
    """
    injected, survived = Counter[str](), Counter[str]()
    slowest: dict[str, float] = defaultdict(float)
    for result in results:
        injected.update(result["injected"])
        survived.update(result["injected"] if result["ok"] else [])
        for kind, seconds in result["recoveries"]:
            slowest[kind] = max(slowest[kind], seconds)
    rows = ["", f"{'fault':28} {'injected':>8} {'survived':>8} {'slowest recovery, s':>20}"]
    rows += [f"{kind:28} {injected[kind]:8} {survived[kind]:8} {slowest[kind]:20.2f}" for kind in KINDS]
    total = sum(injected.values()), sum(survived.values()), max(slowest.values(), default=0.0)
    rows += [f"{'all':28} {total[0]:8} {total[1]:8} {total[2]:20.2f}", ""]
    ok, equal = sum(result["ok"] for result in results), sum(result["bits_equal"] for result in results)
    rows.append(f"schedules {len(results)}, survived {ok}, bits equal {equal}")
    rows.append(
        f"shards leased again {sum(max(0, result['leased_again']) for result in results)}, "
        f"duplicates dropped {sum(max(0, result['dropped']) for result in results)}, "
        f"faults that came too late {sum(len(result['too_late']) for result in results)}"
    )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
