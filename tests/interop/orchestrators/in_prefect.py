"""The page's examples in `prefect_test_harness`; run by an environment that has Prefect."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.context import get_run_context
from prefect.testing.utilities import prefect_test_harness
from seen import break_again, check, check_log, counts, counts_of_streams, mend, notes

from syncblocks.sync.integrations.prefect import sync


def main() -> None:
    with prefect_test_harness(server_startup_timeout=120):
        import crm_flow  # the page's examples
        import own_flow

        check(Path(".syncblocks").exists(), False, "a run store at definition")
        check(crm_flow.crm.name, "crm", "the flow's name")

        state = crm_flow.crm(return_state=True)
        check(state.type.value, "FAILED", "a failed stream")
        check("3 fields for 2 columns" in str(state.message), True, "the error")
        check(counts(), {"orders": 2, "users": 2}, "tables of three tries")
        tries = [f"visits failure 1 {attempt}" for attempt in (1, 2, 3)]
        check(notes(), ["orders success 1 1", "users success 1 1", *tries], "callbacks, each try an attempt")

        mend()
        done = crm_flow.crm()
        check((done["run_id"], done["status"], done["streams"]["visits"]["records"]), (2, "success", 2), "the result")
        check(counts(), {"orders": 4, "users": 4, "visits": 2}, "tables")
        notes()

        check(own_flow.nightly(), 2, "a task of somebody's own flow")
        check(notes(), ["orders success 3 1"], "callbacks of a part")
        with get_client(sync_client=True) as client:
            shown = client.read_artifacts()
            check_log(entry.message for entry in client.read_logs())
        check("syncblocks-crm" in {artifact.key for artifact in shown}, True, "an artifact")

        tasks_of_streams()
        check(fails_after_its_run(), 6, "the run of a flow that is tried again")
        check(notes(), ["orders success 6 1"], "its callbacks")
        check(counts()["orders"], 8, "its table")
        Path("crm.yaml").write_text("nope: 1", encoding="utf-8")
        state = crm_flow.crm(return_state=True)
        check("ConfigError" in str(state.message), True, "a mistake in the file")
    print("flow, task, failure, retries as attempts, artifact; a task for each stream, its retries")


@flow(retries=1)
def fails_after_its_run() -> int:
    """Fail in the first try, when the run has ended; return its number."""
    done = sync("crm.yaml", streams=["orders"])
    if get_run_context().flow_run.run_count == 1:
        raise RuntimeError("once")
    return int(done["run_id"])


def tasks_of_streams() -> None:
    """A stream that fails in all of its tries beside two that succeed, and a good run."""
    import crm_streams_flow

    tries = [f"visits failure 4 {attempt}" for attempt in (1, 2, 3)]
    break_again()
    state = crm_streams_flow.crm_streams(return_state=True)
    check(state.type.value, "FAILED", "a failed stream of its own task")
    check("3 fields for 2 columns" in str(state.message), True, "its error")
    check(counts_of_streams(), {"orders": 2, "users": 2}, "tables of three tries of a stream")
    check(notes(), ["orders success 4 1", "users success 4 1", *tries], "callbacks, each try an attempt over a stream")
    mend()
    done = crm_streams_flow.crm_streams()
    check((done["run_id"], done["streams"]["visits"]["records"]), (5, 2), "the result of streams")
    check(counts_of_streams(), {"orders": 4, "users": 4, "visits": 2}, "tables of streams")
    check(notes(), [f"{name} success 5 1" for name in ("orders", "users", "visits")], "callbacks of streams")


if __name__ == "__main__":
    main()
