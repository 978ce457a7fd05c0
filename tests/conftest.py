"""For all tests: they import `running` and what scripts/ holds; what is passed over is said, and may be forbidden."""

import re
import sys
import tomllib
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

LACKING = "this system "  # begins the reason of a skip that no installation can mend
MINUTES = 5  # of the whole suite, on 2 cores

# Tests of laws do not fail because the machine is busy, say the same of the same code each time, and write nothing.
settings.register_profile("karp", deadline=None, derandomize=True)
settings.load_profile("karp")


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "a test that is passed over has failed, unless it is the system that lacks something"
    parser.addoption("--no-skips", action="store_true", help=told)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Say how long it takes, if that is the whole suite."""
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    part = config.option.keyword or config.option.markexpr or config.args_source != config.ArgsSource.TESTPATHS
    if reporter is not None and not part:
        reporter.write_line(f"{len(session.items):,} tests; on 2 cores they take about {MINUTES} minutes")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    forbid(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    forbid(collector.config, report)
    return report


def forbid(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    """With --no-skips what was passed over has failed, unless it is the system that lacks something."""
    if config.option.no_skips and report.skipped and not hasattr(report, "wasxfail"):
        reason = why(report)
        if not reason.startswith(LACKING):
            report.outcome, report.longrepr = "failed", f"passed over: {reason}"


def why(report: Any) -> str:
    """The reason why a test was passed over, and what can be done about it."""
    reason = str(report.longrepr[-1]).removeprefix("Skipped: ")
    missing = re.match(r"could not import '(\w+)", reason)
    if missing is None:
        return reason
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {extra: [one.replace("-", "_") for one in packages] for extra, packages in extras.items()}
    names = [extra for extra, packages in wanted.items() if any(re.match(rf"{missing[1]}\b", one) for one in packages)]
    return f"{missing[1]} is not installed" + (f" (pip install 'karp[{names[0]}]')" if names else "")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was passed over, and why."""
    for reason, count in Counter(map(why, terminalreporter.stats.get("skipped", []))).items():
        terminalreporter.write_line(f"{count} passed over: {reason}")
