"""Kills processes of flow runs that Prefect's process worker has started, and cancels some; each is then retried."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from killing import FOLDER, Rounds

#: The flows: one task is the run, a task for each stream, and these in processes of their own. To load them arms none:
#: Prefect does that in processes that look after a flow run, too.
FLOWS = """\
from killing import FILE, arm
from prefect.task_runners import ProcessPoolTaskRunner

from syncblocks.sync.integrations.prefect import streams_flow, sync_flow


def armed(flow, flow_run, state):
    arm("flow")


whole_run = sync_flow(FILE, name="whole_run", on_running=[armed])
each_stream = streams_flow(FILE, name="each_stream", retries=1, on_running=[armed])
processes = streams_flow(FILE, name="processes", retries=1, task_runner=ProcessPoolTaskRunner(max_workers=2))
"""
POOL = "kills"
#: Seconds for one try of a flow run.
LIMIT_S = 180


def ended(client: Any, run: UUID) -> str:
    """Wait until a try of a flow run has ended; return its state's type."""
    end = time.monotonic() + LIMIT_S
    while not (state := client.read_flow_run(run).state).is_final():
        if time.monotonic() > end:
            return f"still {state.type.value}"
        time.sleep(0.3)
    return str(state.type.value)


def run_with_kills(client: Any, deployment: UUID, kills: int) -> str:
    """Order a flow run, and order its retry after each kill, as a person or an automation does."""
    run = client.create_flow_run_from_deployment(deployment).id
    state = ended(client, run)
    for number in range(kills):
        if state != "CRASHED":
            return f"{state} instead of kill {number}"
        state = retried(client, run)
    return state


def retried(client: Any, run: UUID) -> str:
    """Order the retry of a flow run that has ended; return how that ends."""
    from prefect.states import AwaitingRetry

    tries, end = client.read_flow_run(run).run_count, time.monotonic() + LIMIT_S
    while (now := client.read_flow_run(run)).run_count == tries and time.monotonic() < end:
        if now.state.is_final():  # a crash is told of twice, and the worker may be later than the order
            client.set_flow_run_state(run, AwaitingRetry(), force=True)
        time.sleep(0.3)
    return ended(client, run)


def run_held_up(client: Any, deployment: UUID, disturb: Callable[[UUID, int], None]) -> tuple[UUID, str]:
    """Order a flow run, and disturb it while a stream is held up; return the flow run and how that ends.

    `disturb` gets the flow run and the number of the process that runs the stream.
    """
    hold, held = FOLDER / "hold", FOLDER / "held"
    hold.touch()
    run = client.create_flow_run_from_deployment(deployment).id
    end = time.monotonic() + LIMIT_S
    while not (held.exists() and held.read_text()) and time.monotonic() < end:
        time.sleep(0.1)
    disturb(run, int(held.read_text()))
    state = ended(client, run)
    for file in (hold, held):
        file.unlink(missing_ok=True)
    return run, state


def run_with_cancel(client: Any, deployment: UUID, rounds: Rounds) -> str:
    """Order a flow run, cancel it in the middle, and order its retry."""
    from prefect.states import Cancelling

    run, state = run_held_up(client, deployment, lambda run, _: client.set_flow_run_state(run, Cancelling()))
    if (state, of_run := rounds.latest_run()) != ("CANCELLED", ("cancelled", False)):
        return f"{state} after the cancel, and status and is_active of its run are {of_run}"
    return retried(client, run)


def run_with_killed_task(client: Any, deployment: UUID, rounds: Rounds) -> str:
    """Order a flow run, kill the process of a task in the middle, and order the retry of the flow that fails by it."""

    def kill(_: UUID, process: int) -> None:
        os.kill(process, signal.SIGKILL)
        (FOLDER / "hold").unlink()

    rounds.kills += 1
    run, state = run_held_up(client, deployment, kill)
    return state if state == "COMPLETED" else retried(client, run)


@contextmanager
def worker() -> Iterator[Any]:
    """Run a server and a process worker, and yield a client; end them with whatever they have started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    program = str(Path(sys.executable).with_name("prefect"))
    commands = (
        ["server", "start", "--port", str(port), "--no-ui"],
        # One at a time: a retry begins when the worker has told of the crash, which would be the retry's otherwise.
        ["worker", "start", "--type", "process", "--pool", POOL, "--limit", "1"],
    )
    with ExitStack() as stack:
        for command in commands:
            log = stack.enter_context((FOLDER / f"{command[0]}.txt").open("wb"))
            process = subprocess.Popen([program, *command], stdout=log, stderr=log, start_new_session=True)
            stack.callback(_end, process)
            _wait(command[0])
        from prefect.client.orchestration import get_client  # by the settings above

        yield stack.enter_context(get_client(sync_client=True))


def _wait(what: str) -> None:
    """Wait until the server answers, or the worker has made its pool."""
    from prefect.client.orchestration import get_client

    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        with suppress(Exception), get_client(sync_client=True) as client:
            if what == "server":
                client.hello().raise_for_status()
            else:
                client.read_work_pool(POOL)
            return
        time.sleep(0.5)
    raise SystemExit(f"the {what} of Prefect does not start; see {FOLDER}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def deployed() -> dict[str, UUID]:
    """Deploy the flows, for the worker; return their ids."""
    from prefect import flow

    (FOLDER / "shop_flows.py").write_text(FLOWS, encoding="utf-8")
    return {
        name: flow.from_source(str(FOLDER), entrypoint=f"shop_flows.py:{name}").deploy(
            name, work_pool_name=POOL, build=False, push=False, print_next_steps=False
        )
        for name in ("whole_run", "each_stream", "processes")
    }


def main() -> None:
    rounds = Rounds()
    with worker() as client:
        flows = deployed()
        for flow, *places in (
            ("whole_run", "store.begin_run.after:1", "postgres.commit.inside:3"),
            ("whole_run", "stream.after_commit:2", "store.finish_run.after:1"),
            ("each_stream", "store.hold_run.after:1", "store.claim_own.after:2"),
            ("each_stream", "store.close.after:1"),
            ("each_stream", "store.take_over.after:1", "store.finish_run.after:1"),
        ):
            rounds.begin(flow=places)
            rounds.end(run_with_kills(client, flows[flow], len(places)), "COMPLETED")
        rounds.begin()
        rounds.end(run_with_killed_task(client, flows["processes"], rounds), "COMPLETED")
        for flow in ("whole_run", "each_stream"):
            rounds.begin()
            rounds.end(run_with_cancel(client, flows[flow], rounds), "COMPLETED")
    rounds.report()


if __name__ == "__main__":
    main()
