"""Kills steps of Dagster's multiprocess executor, which its policy tries again; once it kills all tries of a run."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from seen import ARMED, PLACES, arm, check, check_round, mend


def crm_job() -> dg.JobDefinition:
    """Return the job; called in each process of a step, too."""
    import armed

    job = dg.define_asset_job("crm_job", executor_def=dg.multiprocess_executor)
    return dg.Definitions(assets=[armed.crm], jobs=[job]).resolve_job_def("crm_job")


def materialized(done: dg.JobExecutionResult) -> set[str]:
    """Return the streams that a run has materialized."""
    return {event.asset_key.path[-1] for event in done.asset_materializations_for_node("crm") if event.asset_key}


def main() -> None:
    mend()
    Path("armed.py").write_text(f"{ARMED}from definitions import crm\n", encoding="utf-8")
    crm_job()  # this process is not armed
    job = dg.reconstructable(crm_job)
    with dg.DagsterInstance.get() as instance:
        for number, place in enumerate(PLACES, 1):
            arm(*[place] * (3 if number == 2 else 1))
            with dg.execute_job(job, instance=instance) as done:
                check(done.success, number != 2, f"a run after a kill at {place}")
                told = materialized(done)
            check(Path("places.txt").read_text(encoding="utf-8"), "", f"places that were not reached, {place}")
            if not done.success:  # Dagster's daemon repeats a run so, with `run_retries`
                again = dg.ReexecutionOptions(parent_run_id=done.run_id)
                tags = {"dagster/retry_number": "1"}
                with dg.execute_job(job, instance=instance, reexecution_options=again, tags=tags) as repeated:
                    check(repeated.success, True, "a run that is repeated")
                    told = materialized(repeated)
            check(told, {"orders", "users", "visits"}, f"materialized after a kill at {place}")
            check_round(place, number)
    print(f"{len(PLACES) + 2} steps killed and tried again, one run repeated: nothing doubled")


if __name__ == "__main__":
    main()
