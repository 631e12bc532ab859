"""Airflow's `dag.test()` over the page's example; run by an environment that has Airflow."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from seen import break_again, check, check_log, counts, counts_of_streams, mend, notes


def main() -> None:
    program = str(Path(sys.executable).with_name("airflow"))
    subprocess.run([program, "db", "migrate"], capture_output=True, check=True)
    import crm  # the page's example
    import crm_command  # noqa: F401  (needs a command in an environment of its own; here it is only parsed)

    check(Path(".syncblocks").exists(), False, "a run store at definition")

    run = crm.dag.test(run_conf={"why": "test"})
    (task,) = run.get_task_instances()
    check((str(task.state), task.try_number), ("failed", 3), "a failed stream")
    check(counts(), {"orders": 2, "users": 2}, "tables of three tries")
    tries = [f"visits failure 1 {attempt}" for attempt in (1, 2, 3)]
    check(notes(), ["orders success 1 1", "users success 1 1", *tries], "callbacks, each try an attempt")

    mend()
    run = crm.dag.test()
    (task,) = run.get_task_instances()
    check(str(task.state), "success", "another DAG run")
    found = handed_on(task)
    check((found["run_id"], found["streams"]["orders"]["records"]), (2, 2), "what the task hands on")
    notes()

    break_again()
    import crm_streams

    tries = [f"visits failure 3 {attempt}" for attempt in (1, 2, 3)]
    check(Path("streams.db").exists(), False, "a table at definition")
    run = crm_streams.dag.test()
    states = {task.task_id + str(task.map_index): str(task.state) for task in run.get_task_instances()}
    of_streams = [states.pop(f"sync.stream{place}") for place in range(3)]
    check(of_streams, ["success", "success", "failed"], "a task for each stream")
    check(states, {"sync.open-1": "success", "sync.finish-1": "failed"}, "open and finish")
    check(counts_of_streams(), {"orders": 2, "users": 2}, "tables of three tries of a stream")
    check(notes(), ["orders success 3 1", "users success 3 1", *tries], "callbacks, each try an attempt over a stream")

    mend()
    run = crm_streams.dag.test()
    check({str(task.state) for task in run.get_task_instances()}, {"success"}, "another DAG run of streams")
    check(counts_of_streams(), {"orders": 4, "users": 4, "visits": 2}, "tables of streams")
    check(notes(), [f"{name} success 4 1" for name in ("orders", "users", "visits")], "callbacks of streams")
    check(is_rescheduled(), True, "a retry while the attempt is open")

    mend()
    # The log of a task of `dag.test()` is the output of its process.
    told = subprocess.run(
        [sys.executable, "-c", "import crm; crm.dag.test()"], capture_output=True, text=True, check=True
    )
    check_log((told.stdout, told.stderr))
    print("operator, failure, retries as attempts, XCom; a mapped task for each stream, its retries")


def is_rescheduled() -> bool:
    """Tell whether a second try is put off while other streams of the attempt have not run."""
    from airflow.sdk.exceptions import AirflowRescheduleException

    from syncblocks import finish_run, open_run, sync_stream
    from syncblocks.sync.integrations.airflow import SyncStreamOperator

    break_again()
    run = open_run("streams.yaml")
    sync_stream("streams.yaml", run.id, "visits")
    operator = SyncStreamOperator(
        task_id="visits", pipeline="streams.yaml", claim={"run_id": run.id, "stream": "visits"}
    )
    try:
        operator.execute({"ti": SimpleNamespace(try_number=2)})
    except AirflowRescheduleException as error:
        return error.reschedule_date > datetime.now(UTC)
    finally:
        finish_run("streams.yaml", run.id)
    return False


def handed_on(task: Any) -> dict[str, Any]:
    """Return what the task has pushed."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        (row,) = session.scalars(XComModel.get_many(run_id=task.run_id, task_ids="sync", key="return_value")).all()
        return dict(XComModel.deserialize_value(row))


if __name__ == "__main__":
    main()
