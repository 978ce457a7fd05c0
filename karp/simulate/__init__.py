"""A cluster without computers: the real server and the real workers on a virtual clock and an imaginary network.

The two machines of `karp.protocol` do no I/O, so they run here unchanged. All else is drawn from one seed: how long
messages travel and computations take; which messages are lost, duplicated or overtaken; which workers are killed, cut
off, paused or slow; when the server dies and from which checkpoint it is restarted. A seed gives the same history every
time.

    scenario.py         the description of a run; `draw_scenario` makes one from a seed
    randomness.py       the random numbers of a run
    network.py          the clock, and how messages travel
    problem.py          an imaginary model with a real loss, and a reference that trains it alone
    worker_process.py   a worker's process, which drives `protocol.Worker` as the Trainer does
    shared_memory.py    memory that server and workers share, and the ranges in it
    server_process.py   the server's process, which drives the server's machine as serve/process.py does; checkpoints
    fault_injector.py   kills, pauses, partitions, crashes, malformed messages, programs that fail
    cluster.py          all of it together, with a launcher; `check_many` runs many scenarios
    checker.py          every invariant, after every event
    study.py            a study: one large run without faults of the server, and its figures
    report.py           the outcome of a study as text, JSON or a picture

There are two uses. Tests and `karp simulate --schedules` run thousands of small scenarios full of faults, and the
checker checks every invariant after every event. A study of the algorithms is one large scenario, which `karp simulate`
runs to print its figures.
"""

from karp.simulate.checker import Violation
from karp.simulate.cluster import Cluster, check_many
from karp.simulate.scenario import ALWAYS, POINTS, BadShard, Fault, Kill, Scenario, draw_scenario

__all__ = [
    "ALWAYS", "POINTS", "BadShard", "Cluster", "Fault", "Kill", "Scenario", "Violation", "check_many", "draw_scenario",
]  # fmt: skip
