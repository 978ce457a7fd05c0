"""The processes of a run on a Ray cluster, for its launcher (extra `karp[ray]`).

The server and each worker have an actor (ray_actors.py) in one placement group: Ray decides where. The launcher is the
driver: it waits for what the actors answer, and the supervisor decides, as for processes of this host. So Ray restarts
nothing by itself. A worker whose actor is gone gets another one, which begins when Ray has room. A server whose actor
is gone gets one on another node, and so another address: then the workers' processes are replaced, too.

Everything goes through Ray but what server and workers say to each other: options and keys to the nodes, reports and
what workers print back. The run's directory is on storage that the launcher's host and the server's node share. The
program is where every node sees it, or in a working directory that Ray sends to the nodes. When the driver ends,
however it does, Ray ends the actors, and these their processes.
"""

import contextlib
import logging
import signal
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from karp import environment
from karp.errors import LostError, MissingError, SettingError
from karp.launch.actions import Say
from karp.launch.processes import open_log
from karp.launch.ray_actors import ServerActor, WorkerActor, hash_of
from karp.launch.ray_needs import Needs, Seen, other_karp
from karp.launch.ray_places import Expected, Place, Printed, first_line
from karp.launch.states import OPEN
from karp.launch.supervisor import SERVER
from karp.serve.config import Config
from karp.transport.addresses import split

if TYPE_CHECKING:
    from karp.launch.hands import Launching

ROOM_SECONDS = 60.0  # for the cluster to have room for the run, and for its actors to begin
POLL_SECONDS = 5.0  # for which an actor waits for something to say
STOP_SECONDS = 10.0  # after which a process that is to end is given up, with its actor
REPORT_SECONDS = 0.1  # for the reports of what a worker did before its end
KILLED = -9


class RayCluster:
    """The processes of one run on a Ray cluster."""

    def __init__(self, launch: "Launching") -> None:
        self.launch = launch
        self.options = launch.options
        self.supervisor = launch.supervisor
        self.logs = launch.directory / "logs"
        self.published = ""
        self.places: dict[int, Place] = {}  # worker, or SERVER -> its newest place
        self.futures: dict[Any, Expected] = {}
        self.printed: dict[int, Printed] = {}
        self.group: Any = None
        self.variables: dict[str, str] = {}
        self.opened = False
        self.needs = Needs(launch.options)

    @property
    def host(self) -> str:
        """The address that the server listens on."""
        return split(self.published)[0]

    # The cluster.

    def open(self) -> None:
        """Connect to the cluster, reserve room, begin the actors, and see that the nodes have what they need.

        Raises MissingError without Ray, LostError if there is no cluster or no room in ROOM_SECONDS, SettingError if a
        node lacks the program, its folder, the run's directory or this karp.
        """
        try:
            import ray
        except ImportError:
            raise MissingError("--on ray needs Ray: pip install 'karp[ray]'") from None

        self.ray: Any = ray
        self.needs.check_folder()
        address = None if self.options.on == "ray" else self.options.on
        sent = {"working_dir": str(self.needs.sent)} if self.needs.sent else None
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            ray.init(address=address, runtime_env=sent, log_to_driver=False, logging_level=logging.ERROR)
        except ray.exceptions.RuntimeEnvSetupError as error:
            raise SettingError(f"Ray does not send --working-dir {self.needs.sent}: {first_line(error)}") from None
        except Exception as error:  # of many types
            raise LostError(f"there is no Ray cluster to run on ({first_line(error)}): see RAY_ADDRESS, --on") from None
        finally:
            for number, handler in handlers.items():  # Ray has one of its own for SIGTERM
                signal.signal(number, handler)
        self.opened = True
        self._reserve()
        self.places[SERVER] = self._begin(ServerActor, 0)
        for worker in range(self.options.workers):
            self.places[worker] = self._begin(WorkerActor, worker + 1)
        self._check_nodes()
        self.published = self._listen(self.places[SERVER])

    def _reserve(self) -> None:
        """Reserve room for the server and the workers: one bundle each, spread over the nodes."""
        from ray.util.placement_group import placement_group

        cpus = self.options.cpus
        bundles = [{"CPU": 1}, *({"CPU": cpus} for _ in range(self.options.workers))]
        self.group = placement_group(bundles, strategy="SPREAD")
        if not self.group.wait(ROOM_SECONDS):
            have = self.ray.cluster_resources().get("CPU", 0.0)
            free = self.ray.available_resources().get("CPU", 0.0)
            nodes = sum(node["Alive"] for node in self.ray.nodes())
            raise LostError(
                f"Ray had no room for the run in {ROOM_SECONDS:.0f} s: it needs 1 CPU for the server and {cpus} for "
                f"each of {self.options.workers} workers; {free:g} of {have:g} CPUs are free on "
                f"{nodes} node{'s' * (nodes != 1)}: take fewer workers, or add nodes"
            )

    def _begin(self, kind: type, index: int) -> Place:
        """Begin an actor in a bundle of the placement group."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        cpus = 1 if index == 0 else self.options.cpus
        strategy: Any = "SPREAD"  # of a worker that the run can begin without: it waits for room
        if index <= self.options.workers:
            strategy = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=index)
        actor = self.ray.remote(num_cpus=cpus, max_restarts=0, max_task_retries=0, max_concurrency=4)(kind)
        return Place(actor.options(scheduling_strategy=strategy).remote())

    def _check_nodes(self) -> None:
        """Raise SettingError for the first node that lacks a file, or has another karp."""
        workers = [place for process, place in self.places.items() if process != SERVER]
        futures = [self._look(place) for place in workers]
        launched = self.launch.directory / "launch.json"
        futures.append(self.places[SERVER].call("look", str(launched)))
        *answers, (at, version, found) = self._get(futures, "its actors to begin")
        looks = [Seen(*answer) for answer in answers]
        for place, seen in zip(workers, looks, strict=True):
            place.node = seen.node
        self.places[SERVER].node = at
        for lacking in (other_karp(at, version), *map(self.needs.lacking, looks)):
            if lacking:
                raise SettingError(lacking)
        if found != hash_of(launched):
            where = self.launch.directory
            raise SettingError(f"node {at}, of the server, does not see the run's directory {where}: put it on storage "
                "that it shares with this host (--run-dir)")  # fmt: skip
        self.launch.perform([Say(text) for seen in looks for text in self.needs.warnings(seen)])

    def _listen(self, place: Place) -> str:
        (address,) = self._get([place.call("listen")], "the server's node to listen")
        return str(address)

    def _get(self, futures: list[Any], what: str) -> list[Any]:
        """Return what these calls answer; raises LostError if they do not in ROOM_SECONDS, or if an actor is gone."""
        try:
            return list(self.ray.get(futures, timeout=ROOM_SECONDS))
        except self.ray.exceptions.GetTimeoutError:
            raise LostError(f"Ray has been waited for, {ROOM_SECONDS:.0f} s: for {what}; see `ray status`") from None
        except self.ray.exceptions.RayError as error:
            raise LostError(f"Ray has failed, waiting for {what}: {first_line(error)}") from None

    # Processes.

    def start_server(self, config: Config, variables: Mapping[str, str]) -> None:
        """Start the server's process, on another node if its actor is gone; then the workers' are replaced.

        Raises LostError if no node has room for it in ROOM_SECONDS.
        """
        self.variables = dict(variables)
        place = self.places.get(SERVER)
        moved = place is None
        if place is None:
            place = self.places[SERVER] = self._begin(ServerActor, 0)
            self.published = self._listen(place)
            self.launch.moved()
        config = config._replace(address=self.published, launched=0.0)
        log = self.logs / "server.log"
        self.printed[SERVER] = Printed(log, log.stat().st_size)
        self._expect("start", SERVER, place, place.call("start", list(config), self._given(), moved))
        self._expect("poll", SERVER, place, place.poll(POLL_SECONDS))
        if moved:
            for worker, other in self.places.items():
                if worker != SERVER and other.runs and other.node:  # the others start with the new address
                    self._start_process(worker, other)

    def start_worker(self, worker: int, variables: Mapping[str, str]) -> None:
        """Start a worker's process: in its actor, or in another one as soon as Ray has room."""
        self.variables = dict(variables)
        if worker not in self.places:
            self.places[worker] = self._begin(WorkerActor, worker + 1)
        log = self.logs / f"worker-{worker}.log"
        with open_log(log) as file:
            self.printed[worker] = Printed(log, file.tell())
        self._start_process(worker, self.places[worker])

    def _start_process(self, worker: int, place: Place) -> None:
        """Start a worker's process; in an actor that began later than the run, once its node has what is needed."""
        place.runs, place.stop_by = True, 0.0
        if not place.node:
            self._expect("look", worker, place, self._look(place))
            return
        place.number += 1
        program, folder = self.needs.there()
        arguments = place.number, worker, program, self.options.arguments, folder, self._given()
        self._expect("start", worker, place, place.call("start", *arguments))

    def _look(self, place: Place) -> Any:
        """Ask an actor what its node has of what the program needs; return the future of the answer."""
        return place.call("look", *self.needs.there(), self.needs.files)

    def _looked(self, worker: int, place: Place, seen: Seen) -> None:
        """Start a worker's process on a node that was not there when the run began, if it has what is needed."""
        if lacking := self.needs.lacking(seen):
            self._lost(worker, place, f"cannot run there: {lacking}")
            return
        place.node = seen.node
        self.launch.perform([Say(text) for text in self.needs.warnings(seen)])
        self._start_process(worker, place)

    def _given(self) -> dict[str, str]:
        """Return the variables of the run for a process on a node."""
        own = environment.own()
        handed_on = {name: own[name] for name in environment.HANDED_ON if name in own}
        return handed_on | {environment.SERVER: self.published} | self.variables

    def tell(self, command: Mapping[str, object]) -> None:
        """Send the server a command; if it is gone, do nothing."""
        if place := self.places.get(SERVER):
            place.call("tell", dict(command))

    def stop(self, workers: list[int]) -> None:
        """Ask these workers' processes to end; what has not in STOP_SECONDS is given up with its actor.

        An actor whose node is not known has no process, and is given up at once.
        """
        for worker in workers:
            place = self.places[worker]
            if not place.node:
                self._lost(worker, place, "was not started")
                continue
            place.stop_by = time.monotonic() + STOP_SECONDS
            place.call("stop")

    def kill_server(self) -> None:
        """Kill the server's process with its actor."""
        self._give_up(self.places[SERVER])

    def kill_all(self) -> None:
        """Do nothing: the launcher ends at once, and with it its actors."""

    def _give_up(self, place: Place) -> None:
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(place.actor)

    # Events.

    def _expect(self, what: str, process: int, place: Place, future: Any) -> None:
        self.futures[future] = Expected(what, process, place, place.number)

    def watch(self, seconds: float) -> None:
        """Tell the supervisor of what the actors answer in the next seconds at most."""
        for ready in self._ready(seconds):
            if ready in self.futures:  # its actor is not known to be gone
                self._handle(self.futures.pop(ready), ready)
        now = time.monotonic()
        for process, place in list(self.places.items()):
            if place.stop_by and place.runs and now > place.stop_by:
                self._give_up(place)
                self._lost(process, place)

    def _ready(self, seconds: float) -> Iterator[Any]:
        """Return the futures that have an answer; wait for the first at most so many seconds."""
        if not self.futures:
            time.sleep(seconds)
            return
        ready, _ = self.ray.wait(list(self.futures), timeout=seconds, num_returns=1)
        if ready:
            ready, _ = self.ray.wait(list(self.futures), timeout=0, num_returns=len(self.futures))
        servers = [future for future in ready if self.futures[future].process == SERVER]  # reports come before ends
        yield from [*servers, *(future for future in ready if future not in servers)]

    def _handle(self, expected: Expected, ready: Any) -> None:
        """Handle an answer of an actor, or that it is gone."""
        what, process, place, number = expected
        try:
            answer = self.ray.get(ready)
        except self.ray.exceptions.ActorUnavailableError:  # for a while, or the first that is seen of its end
            if what == "poll":
                self._poll(process, place)
            else:
                self._lost(process, place)
            return
        except self.ray.exceptions.RayTaskError as error:
            self.launch.perform(self.supervisor.trouble(f"on node {place.node}: {first_line(error)}", time.monotonic()))
            return
        except self.ray.exceptions.RayError:
            self._lost(process, place)
            return
        if self.places.get(process) is not place or number != place.number:
            return  # of a process in whose place there is another
        if what == "look":
            self._looked(process, place, Seen(*answer))
        elif what == "start":
            where = f" on {place.node}" if place.node else ""
            self.supervisor.started(process, f"process {answer}{where}")
            if process != SERVER:
                self._poll(process, place)
        elif process == SERVER:
            self._server_says(place, *answer)
        else:
            self._worker_says(process, place, *answer)

    def _poll(self, process: int, place: Place) -> None:
        arguments = (POLL_SECONDS,) if process == SERVER else (place.number, POLL_SECONDS)
        self._expect("poll", process, place, place.poll(*arguments))

    def _server_says(self, place: Place, lines: list[bytes], status: int | None) -> None:
        from karp.protocol.reports import from_line

        for line in lines:
            self.launch.perform(self.supervisor.report(from_line(line), time.monotonic()))
        if status is None:
            self._poll(SERVER, place)
        else:
            self.launch.server_ended(status)

    def _worker_says(self, worker: int, place: Place, printed: bytes, status: int | None) -> None:
        """Write what a worker has printed to its log, and tell the supervisor if its process has ended."""
        if printed:
            with open_log(self.printed[worker].log) as file:
                file.write(printed)
        if status is None:
            self._poll(worker, place)
        else:
            self._ended(worker, place, status)

    def _ended(self, worker: int, place: Place, status: int, how: str = "") -> None:
        """Tell the supervisor that a worker's process has ended, after the reports of what it did."""
        if not place.runs:
            return
        place.runs = False
        was_open = self.supervisor.phase in OPEN
        self.launch.perform(self.supervisor.exited(worker, status, time.monotonic(), how))
        if was_open:
            self._read_reports(REPORT_SECONDS if status else 0.0)
            self.launch.pass_interrupt()
        self.launch.perform(self.supervisor.ended(worker, time.monotonic()))
        if self.supervisor.processes[worker].dismissed and self.places.get(worker) is place:
            del self.places[worker]  # others may have its room
            self._give_up(place)

    def _read_reports(self, seconds: float) -> None:
        """Handle what the server's actor answers in the next seconds at most."""
        futures = [future for future, expected in self.futures.items() if expected[:2] == ("poll", SERVER)]
        ready, _ = self.ray.wait(futures, timeout=seconds) if futures else ([], [])
        for future in ready:
            self._handle(self.futures.pop(future), future)

    def _lost(self, process: int, place: Place, how: str = "") -> None:
        """Tell the supervisor of the end of a process whose actor is gone; its next process gets another actor."""
        if self.places.get(process) is not place:
            return
        del self.places[process]
        self._give_up(place)  # it may only be out of reach
        for future in [future for future, expected in self.futures.items() if expected.place is place]:
            del self.futures[future]
        how = how or "was lost with its actor" + f" on node {place.node}" * bool(place.node)
        if process == SERVER:
            self.launch.server_ended(KILLED, how)
        else:
            self._ended(process, place, KILLED, how)

    # What is left.

    def output(self, process: int) -> Printed:
        """Return where the output of a process is."""
        return self.printed[process]

    def newest(self) -> Mapping[int, Printed]:
        """Return where the output of each worker's newest process is."""
        return {worker: printed for worker, printed in self.printed.items() if worker != SERVER}

    def warning(self, threads: int) -> str:
        """Return '': Ray has reserved the cores."""
        return ""

    def close(self) -> None:
        """End the actors, give their room back, and leave the cluster."""
        if not self.opened:
            return
        for place in self.places.values():
            self._give_up(place)
        if self.group is not None:
            from ray.util.placement_group import remove_placement_group

            with contextlib.suppress(self.ray.exceptions.RayError):
                remove_placement_group(self.group)
        self.ray.shutdown()
