"""Kills steps of Dagster's multiprocess executor, which its policy tries again; twice it kills all tries of a run."""

from __future__ import annotations

from functools import cache
from multiprocessing import parent_process
from typing import Any

import dagster as dg
from killing import FILE, STREAMS, Rounds, arm

#: Around the beginning of the run, the commits, the ends of streams, and the end of the run.
PLACES = (
    "store.begin_run.before:1",
    "stream.after_take_over:2",
    "postgres.commit.inside:3",
    "stream.after_commit:1",
    "store.close.inside:2",
    "store.finish_run.after:1",
)
#: Tries of the policy, with the first.
TRIES = 3


@cache
def arm_this_process() -> None:
    """Choose where the process of a step dies, once; the program's own process lives."""
    if parent_process() is not None:
        arm("step")


def shop_job() -> dg.JobDefinition:
    """Return the job; called in each process of a step, too."""
    arm_this_process()
    from syncblocks.sync.integrations.dagster import syncblocks_assets

    shop = syncblocks_assets(FILE, retry_policy=dg.RetryPolicy(max_retries=TRIES - 1, delay=0))
    # A process that has imported Dagster is forked for each step: that is quicker than to import it in each.
    preload = {"preload_modules": ["dagster", "syncblocks.sync.integrations.dagster"]}
    executor = dg.multiprocess_executor.configured({"start_method": {"forkserver": preload}})
    job = dg.define_asset_job("shop_job", executor_def=executor)
    return dg.Definitions(assets=[shop], jobs=[job]).resolve_job_def("shop_job")


def materialized(done: dg.JobExecutionResult) -> set[str]:
    """Return the streams that a run has materialized."""
    return {event.asset_key.path[-1] for event in done.asset_materializations_for_node("shop") if event.asset_key}


def failed(done: dg.JobExecutionResult, *, of_assets: bool) -> dict[str, Any]:
    """Return how Dagster repeats a failed run: its daemon all of it, a person only the assets that have failed."""
    how: dict[str, Any] = {"reexecution_options": dg.ReexecutionOptions(parent_run_id=done.run_id)}
    if not of_assets:
        return how | {"tags": {"dagster/retry_number": "1"}}
    left = [dg.AssetKey(["shop", name]) for name in STREAMS if name not in materialized(done)]
    return how | {"asset_selection": left, "tags": {"dagster/is_asset_resume_retry": "true"}}


def main() -> None:
    rounds, job = Rounds(), dg.reconstructable(shop_job)
    former = ""
    with dg.DagsterInstance.get() as instance:
        for number, place in enumerate(PLACES):
            is_repeated = number in (1, 2)
            # A person executes all of the first run again: that is an order of its own.
            by_hand = {"reexecution_options": dg.ReexecutionOptions(parent_run_id=former)} if number == 1 else {}
            rounds.begin(step=[place] * (TRIES if is_repeated else 1))
            with dg.execute_job(job, instance=instance, **by_hand) as done:
                former, is_success, told = done.run_id, done.success, materialized(done)
                how = failed(done, of_assets=number == 2)
            if is_repeated and not is_success:
                with dg.execute_job(job, instance=instance, **how) as repeated:
                    is_success, told = repeated.success, told | materialized(repeated)
            rounds.end((is_success, sorted(told)), (True, sorted(STREAMS)))
    rounds.report()


if __name__ == "__main__":
    main()
