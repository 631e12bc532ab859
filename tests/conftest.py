"""Fixtures that every room of the house may use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck

from tests import budget, services, tiers
from tests.thinned import thinned
from tests.zygote import SCRIPT, Zygote

# Assertions that stand beside a test's file talk as those in it do; said here, before anybody imports them.
pytest.register_assert_rewrite("tests.sync.store.store_model", "tests.sync.verify.verify_pairs")

RunCLI = Callable[..., "subprocess.CompletedProcess[str]"]

_TALLY = pytest.StashKey[budget.Tally]()


# What pytest rewrites is kept: to rewrite all tests takes each process ten seconds.
sys.dont_write_bytecode = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--costs", type=int, default=0, metavar="N", help="show the N tests that cost the most CPU")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLY] = budget.Tally()
    # Looks at a clock would fail tests of a busy machine.
    hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    hypothesis.settings.load_profile("patient")
    tiers.IS_FAST = config.option.markexpr == tiers.FAST
    if not hasattr(config, "workerinput"):
        services.begin_session()


def pytest_unconfigure(config: pytest.Config) -> None:
    services.end_worker()
    if not hasattr(config, "workerinput"):
        services.end_session()


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Start one more than there are processors: tests wait for servers, disks and children a third of their time."""
    processors = yield
    return processors if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") else processors + 1


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Import no file for the fast tier of which nothing is in it."""
    return True if tiers.IS_FAST and collection_path.suffix == ".py" and tiers.is_full(collection_path) else None


#: For a test of the full set of faults.
FULL_TIMEOUT_S = 1200


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "postgres_url" in getattr(item, "fixturenames", ()):
            item.add_marker("postgres")
        if "mariadb_url" in getattr(item, "fixturenames", ()):
            item.add_marker("mariadb")
        if os.environ.get("SYNCBLOCKS_FAULTS") == "full" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(FULL_TIMEOUT_S))  # many rounds of what has one in the set of a commit
    items[:], left_out = thinned(items)
    tiers.mark_tiers(items)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    if hasattr(config, "workerinput"):
        items[:] = dealt(items, config.workerinput["workercount"])


def dealt(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """Return tests in the order in which workers are given them: to each the same share, the slow ones of it first.

    A worker that has nothing left to do takes from the end of another's share (`--dist worksteal`), so that at the end
    only quick ones run. The slow ones are dealt as cards are: neighbours take about as long as each other, and wait for
    each other where they prepare something that all of them share.
    """
    first = sorted(
        (item for item in items if _is_slow(item)), key=lambda item: item.get_closest_marker("timeout") is None
    )
    rest = [item for item in items if not _is_slow(item)]
    shares: list[pytest.Item] = []
    for worker in range(workers):
        own = first[worker::workers]
        size = (len(items) - len(shares)) // (workers - worker)  # as the scheduler divides them
        room = max(0, size - len(own)) if worker < workers - 1 else len(rest)
        shares += [*own, *rest[:room]]
        del rest[:room]
    return shares


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker(tiers.FULL) is not None


@pytest.fixture(autouse=True)
def _cost(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measure what the test costs with its own fixtures: those that several share begin before it and end after it.

    One that costs too much is run again (pyproject.toml): the first one in a process pays for what it imports.
    """
    before = budget.spent()
    yield
    cost = budget.spent() - before
    request.node.user_properties.append(("cpu", cost))
    request.config.stash[_TALLY].look()
    is_measured = request.node.get_closest_marker(tiers.FULL) is None and os.environ.get("SYNCBLOCKS_FAULTS") != "full"
    if is_measured and cost > budget.TEST_S and (fault := budget.too_much(cost, budget.slowness())):
        pytest.fail(fault, pytrace=False)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take in what a worker has cost; one that has crashed says nothing."""
    if (total := getattr(node, "workeroutput", {}).get("cost")) is not None:
        node.config.stash[_TALLY].add(*total)


def pytest_sessionfinish(session: pytest.Session) -> None:
    tally = session.config.stash[_TALLY]
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["cost"] = tally.own()
    elif tiers.IS_FAST:
        if not session.config.getoption("numprocesses", None):
            tally.add(*tally.own())
        if tally.cost > tally.allowed() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.option.costs:
        costs = {
            report.nodeid: dict(report.user_properties).get("cpu", 0.0)
            for reports in terminalreporter.stats.values()
            for report in reports
            if getattr(report, "when", "") == "teardown" and report.user_properties
        }
        terminalreporter.write_sep("=", "CPU of tests")
        for name in sorted(costs, key=costs.__getitem__, reverse=True)[: config.option.costs]:
            terminalreporter.write_line(f"{costs[name]:7.2f} s  {name}")
    tally = config.stash[_TALLY]
    if tiers.IS_FAST:
        terminalreporter.write_sep(
            "=",
            f"{tally.cost:.0f} s of CPU, {tally.allowed():.0f} are allowed"
            + (": make tests cheaper or mark them `full`" if tally.cost > tally.allowed() else ""),
        )


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """URL of a fresh PostgreSQL database, this test's own."""
    with services.fresh_postgres_database() as url:
        yield url


@pytest.fixture
def log_url() -> Iterator[str]:
    """URL of a fresh PostgreSQL database whose log can be decoded, this test's own; its slots go with it."""
    import psycopg

    with services.fresh_postgres_database(services.logging_postgres_server()) as url:
        yield url
        with psycopg.connect(url, autocommit=True) as connection:
            # Whoever was killed may still be known to the server.
            connection.execute(
                "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots "
                "where database = current_database() and active_pid is not null"
            )
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots "
                "where database = current_database()"
            )
            for (name,) in connection.execute("select pubname from pg_publication").fetchall():
                connection.execute(f'drop publication "{name}"')


@pytest.fixture
def mariadb_url() -> Iterator[str]:
    """URL of a fresh MariaDB database, this test's own."""
    with services.fresh_mariadb_database() as url:
        yield url


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """One warm server a test process, from which engines are forked."""
    server = Zygote()
    budget.count(server.pid)
    yield server
    server.close()


@pytest.fixture(scope="session")
def airbyte_plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for one folder of Airbyte's connectors, which all workers of this session share."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return {"SYNCBLOCKS_PLUGINS": os.environ.get("SYNCBLOCKS_PLUGINS", str(shared / "airbyte-plugins"))}


@pytest.fixture
def run_cli(zygote: Zygote) -> RunCLI:
    """Run `syncblocks` to its end: `run_cli(["plan", "p.yaml"], cwd=tmp_path, env={...})`.

    `env` is added to this process's environment; a None takes a variable away. `is_warm=False` starts the installed
    command itself: for what a plain run imports, and whose child it is.
    """

    def run(
        args: Sequence[str | Path],
        cwd: Path,
        env: Mapping[str, str | None] | None = None,
        *,
        stdin: str = "",
        timeout_s: float = 60,
        is_warm: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        arguments = [*map(str, args)]
        changed = {**os.environ, **(env or {})}
        environment = {name: value for name, value in changed.items() if value is not None}
        if is_warm:
            return zygote.command(arguments, cwd, environment, stdin=stdin, timeout_s=timeout_s)
        return subprocess.run(
            [str(SCRIPT), *arguments],
            cwd=cwd,
            env=environment,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout_s,
            check=False,
        )

    return run
