"""Fixtures that every room of the house may use."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests import services
from tests.thinned import thinned
from tests.zygote import SCRIPT, Zygote

# Assertions that stand beside a test's file talk as those in it do; said here, before anybody imports them.
pytest.register_assert_rewrite("tests.sync.store.store_model", "tests.sync.verify.verify_pairs")

RunCLI = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure(config: pytest.Config) -> None:
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


#: For a test of the full set of faults.
FULL_TIMEOUT_S = 1200
#: What takes longest as a whole; below `tests`.
LONG = ("faults", "fuzz", "golden", "sync/flow/test_memory.py", "connectors/singer/test_mutations.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "postgres_url" in getattr(item, "fixturenames", ()):
            item.add_marker("postgres")
        if "mariadb_url" in getattr(item, "fixturenames", ()):
            item.add_marker("mariadb")
        if os.environ.get("SYNCBLOCKS_FAULTS") == "full" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(FULL_TIMEOUT_S))  # many rounds of what has one in the set of a commit
    items[:], left_out = thinned(items)
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
    first = sorted((item for item in items if _is_long(item)), key=lambda item: item.get_closest_marker("slow") is None)
    rest = [item for item in items if not _is_long(item)]
    shares: list[pytest.Item] = []
    for worker in range(workers):
        own = first[worker::workers]
        size = (len(items) - len(shares)) // (workers - worker)  # as the scheduler divides them
        room = max(0, size - len(own)) if worker < workers - 1 else len(rest)
        shares += [*own, *rest[:room]]
        del rest[:room]
    return shares


def _is_long(item: pytest.Item) -> bool:
    place = item.path.relative_to(Path(__file__).parent).as_posix()
    return item.get_closest_marker("slow") is not None or place.startswith(LONG)


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """URL of a fresh PostgreSQL database, this test's own."""
    with services.fresh_postgres_database() as url:
        yield url


@pytest.fixture
def mariadb_url() -> Iterator[str]:
    """URL of a fresh MariaDB database, this test's own."""
    with services.fresh_mariadb_database() as url:
        yield url


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """One warm server a test process, from which engines are forked."""
    server = Zygote()
    yield server
    server.close()


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
