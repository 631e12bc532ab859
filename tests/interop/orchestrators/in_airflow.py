"""Airflow's `dag.test()` over the page's example; run by an environment that has Airflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from seen import check, counts, mend, notes


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
    print("operator, failure, retries as attempts, XCom")


def handed_on(task: Any) -> dict[str, Any]:
    """Return what the task has pushed."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        (row,) = session.scalars(XComModel.get_many(run_id=task.run_id, task_ids="sync", key="return_value")).all()
        return dict(XComModel.deserialize_value(row))


if __name__ == "__main__":
    main()
