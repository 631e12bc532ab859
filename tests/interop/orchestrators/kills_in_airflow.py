"""Kills tasks of Airflow's LocalExecutor, under a real scheduler, and processes that look after them."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from killing import FOLDER, Rounds

#: The DAGs: one task is the run, and a task for each stream. What `arm` gets is the task's name, or its stream's.
DAGS = """\
from datetime import timedelta

from airflow.sdk import DAG
from killing import FILE, arm

from syncblocks.sync.integrations.airflow import SyncOperator, sync_task_group


def armed(context):
    task = context["ti"].task
    claim = getattr(task, "claim", None)
    arm(claim["stream"] if claim else task.task_id.rpartition(".")[2])


options = {"pipeline": str(FILE), "retries": 3, "retry_delay": timedelta(0)}
with DAG("whole_run", schedule=None, default_args={"pre_execute": armed}):
    SyncOperator(task_id="sync", **options)
with DAG("each_stream", schedule=None, default_args={"pre_execute": armed}):
    sync_task_group("sync", **options)
"""
#: Seconds for one DAG run.
LIMIT_S = 240


def settings(port: int) -> dict[str, str]:
    """Return what makes Airflow small and quick."""
    return {
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        # A busy machine may need longer for the first answers.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        # A task whose supervisor was killed is given up after this time.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


class Airflow:
    """A client of Airflow's public API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._token = self._latest = ""

    def ask(self, path: str, body: Mapping[str, Any] | None = None, method: str | None = None) -> Any:
        """Return the answer to one question."""
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self._url + path, data, headers, method=method), timeout=30) as answer:
            return json.load(answer)

    def wait(self) -> None:
        """Wait until the API answers and the DAGs are known."""
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            with suppress(URLError, OSError):
                self._token = self.ask("/auth/token")["access_token"]
                self.ask("/execution/health")  # its first answer takes long: it imports what it serves
                if self.ask("/api/v2/dags")["total_entries"] == 2:
                    return
            time.sleep(1)
        raise SystemExit(f"Airflow does not know the DAGs; see {FOLDER}")

    def run(self, dag: str) -> str:
        """Order a DAG run, wait for its end, and return its state."""
        self._latest = self.ask(f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None})["dag_run_id"]
        return self._end_of_latest(dag)

    def clear(self, dag: str) -> str:
        """Order all tasks of the latest DAG run anew, as a person does; return the state in which it ends."""
        order = {"dag_run_id": self._latest, "dry_run": False, "only_failed": False, "reset_dag_runs": True}
        self.ask(f"/api/v2/dags/{dag}/clearTaskInstances", order)
        return self._end_of_latest(dag)

    def _end_of_latest(self, dag: str) -> str:
        end = time.monotonic() + LIMIT_S
        while (state := self.ask(f"/api/v2/dags/{dag}/dagRuns/{self._latest}")["state"]) not in ("success", "failed"):
            if time.monotonic() > end:
                return f"still {state}"
            time.sleep(0.5)
        return str(state)


@contextmanager
def airflow() -> Iterator[Airflow]:
    """Run scheduler, DAG processor and API server; end them with whatever they have started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program, env = str(Path(sys.executable).with_name("airflow")), {**os.environ, **settings(port)}
    (FOLDER / "dags").mkdir()
    (FOLDER / "dags" / "shop_dags.py").write_text(DAGS, encoding="utf-8")
    subprocess.run([program, "db", "migrate"], env=env, capture_output=True, check=True)
    with ExitStack() as stack:
        for command in ("api-server", "scheduler", "dag-processor"):
            log = stack.enter_context((FOLDER / f"{command}.txt").open("wb"))
            process = subprocess.Popen([program, command], env=env, stdout=log, stderr=log, start_new_session=True)
            stack.callback(_end, process)
        client = Airflow(port)
        client.wait()
        yield client


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def main() -> None:
    rounds = Rounds()
    with airflow() as client:
        for place in ("store.begin_run.after:1", "postgres.commit.inside:3", "parent", "store.finish_run.after:1"):
            rounds.begin(sync=place)
            rounds.end(client.run("whole_run"), "success")
        rounds.begin(sync="store.finish_run.after:1")
        rounds.end(client.clear("whole_run"), "success")  # a run of its own, which is not repeated
        for places in (
            {
                "open": "store.hold_run.after:1",
                "merged": "store.claim_own.before:1",
                "whole": "store.close.after:1",
                "finish": "store.finish_run.after:1",
            },
            {
                "replaced": "stream.after_commit:1",
                "appended": "postgres.commit.inside:2",
                "finish": "store.take_over.after:1",
            },
        ):
            rounds.begin(**places)
            rounds.end(client.run("each_stream"), "success")
    rounds.report()


if __name__ == "__main__":
    main()
