"""Hosts on one machine: network namespaces with cables between them. Root alone may make them."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

DEVICE = "cable"  # of each host but the first, which has one for each of the others: cable1, cable2, …


class Hosts:
    """A host in the middle, and a cable from it to each of the others: from 10.77.2.1 to 10.77.2.2, as an example."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.centre = names[0]

    def command(self, number: int, line: list[str]) -> list[str]:
        """The command on this host, which has a name and processes of its own."""
        name = self.names[number]
        own = ["unshare", "--uts", "--pid", "--kill-child", "--mount-proc"]
        return ["ip", "netns", "exec", name, *own, "sh", "-c", f'hostname {name} && exec "$@"', "sh", *line]

    def cut(self, number: int) -> None:
        """Cut the cable to this host: nothing passes, and nobody is told."""
        _run("ip", "-n", self.centre, "link", "set", f"{DEVICE}{number}", "down")

    def heal(self, number: int) -> None:
        """Mend the cable to this host."""
        _run("ip", "-n", self.centre, "link", "set", f"{DEVICE}{number}", "up")

    def worsen(self) -> None:
        """Have all that is sent take 20 ms, and a hundredth of it get lost; the test is skipped without netem."""
        ends = [(self.centre, f"{DEVICE}{number}") for number in range(1, len(self.names))]
        for name, device in [*ends, *((name, DEVICE) for name in self.names[1:])]:
            _run("tc", "-n", name, "qdisc", "add", "dev", device, "root", "netem", "delay", "20ms", "loss", "1%")


def _run(*line: str) -> None:
    if shutil.which(line[0]) is None:
        pytest.skip(f"this system has no `{line[0]}`")
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this system does not let hosts be made: {' '.join(line)}: {done.stderr.strip()}")


@contextlib.contextmanager
def connected(count: int) -> Iterator[Hosts]:
    """So many hosts; the test is skipped where there can be none."""
    if os.geteuid() != 0:
        pytest.skip("only root may make network namespaces")
    names = [f"karp-{os.getpid()}-{number}" for number in range(count)]
    try:
        for name in names:
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        for number, name in enumerate(names[1:], 1):
            near, far = f"{DEVICE}{number}", ("peer", "name", DEVICE, "netns", name)
            _run("ip", "link", "add", near, "netns", names[0], "type", "veth", *far)
            for end, (host, device) in enumerate(((names[0], near), (name, DEVICE)), 1):
                _run("ip", "-n", host, "address", "add", f"10.77.{number}.{end}/24", "dev", device)
                _run("ip", "-n", host, "link", "set", device, "up")
            _run("ip", "-n", name, "route", "add", "default", "via", f"10.77.{number}.1")
        _run("ip", "-n", names[0], "route", "add", "default", "dev", f"{DEVICE}1")
        yield Hosts(names)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
