"""A cluster without computers: the real server and the real workers on a virtual clock and an imaginary network.

The two machines of `karp.protocol` do no I/O, so they cannot tell. Everything else is drawn from one seed: how long
messages travel and computations take, what is lost, doubled or overtaken, who is killed, cut off, stopped or slow, when
the server dies and from which checkpoint it comes back. One seed is one history, the same at every repetition.

    scenario.py         what happens: sizes, times, faults; `draw` makes one from a number
    network.py          the clock, and how messages travel
    problem.py          an imaginary model with a real loss, and a reference that trains it alone
    worker_process.py   a worker's process, driving `protocol.Worker` as the trainer does
    server_process.py   the server's process, driving `protocol.Server` as serve/process.py does, and its checkpoints
    cluster.py          all of it together, with a launcher, and what befalls it
    checker.py          every invariant, after every event
    study.py            `karp simulate`: how long, how many messages, how stale, for clusters of any size

It serves two kinds of people. Tests run thousands of small schedules full of faults, and the checker looks at every
invariant after every event. Those who study the algorithms run one large schedule and read off its figures.
"""

from karp.simulate.checker import Violation
from karp.simulate.cluster import Cluster
from karp.simulate.scenario import ALWAYS, POINTS, Bad, Kill, Schedule, Strike, draw

__all__ = ["ALWAYS", "POINTS", "Bad", "Cluster", "Kill", "Schedule", "Strike", "Violation", "draw"]
