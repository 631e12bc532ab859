"""Dagster's `materialize` over the page's example; run by an environment that has Dagster."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from seen import check, check_log, counts, mend, notes

FAILED = ["orders success 1 1", "users success 1 1", "visits failure 1 1"]


def main() -> None:
    import definitions  # the page's example

    crm, instance = definitions.crm, dg.DagsterInstance.ephemeral()
    keys = {name: dg.AssetKey(["crm", name]) for name in ("orders", "users", "visits")}
    check(set(crm.keys), set(keys.values()), "assets")
    check(crm.specs_by_key[keys["orders"]].deps[0].asset_key, dg.AssetKey(["crm", "source", "orders"]), "lineage")
    check(Path(".syncblocks").exists(), False, "a run store at definition")

    done = dg.materialize([crm], instance=instance, raise_on_error=False)
    check(done.success, False, "a failed stream")
    told = [event.asset_key for event in done.asset_materializations_for_node("crm")]
    check(set(told), {keys["orders"], keys["users"]}, "materialized beside a failed stream")
    check(counts(), {"orders": 2, "users": 2}, "tables")
    check(notes(), sorted([*FAILED, "visits failure 1 2", "visits failure 1 3"]), "callbacks, each try an attempt")
    failure = next(event for event in done.all_events if event.is_step_failure)
    check("3 fields for 2 columns" in str(failure.event_specific_data.error.cause), True, "the error")

    mend()
    done = dg.materialize([crm], instance=instance)
    found = {event.asset_key: event.metadata for event in done.asset_materializations_for_node("crm")}
    check(set(found), set(keys.values()), "materialized")
    orders = found[keys["orders"]]
    check((orders["records"].value, orders["run_id"].value), (2, 2), "figures")
    check([column.name for column in orders["dagster/column_schema"].schema.columns], ["id", "name"], "schema")
    check(set(orders["dagster/column_lineage"].lineage.deps_by_column), {"id", "name"}, "lineage of columns")
    observed = {event.asset_key for event in done.get_asset_observation_events()}
    check(observed, set(keys.values()), "commits")
    checks = {(each.asset_key, each.check_name): each.passed for each in done.get_asset_check_evaluations()}
    check(checks[keys["orders"], "rejected"], True, "the check of values")
    check(checks[keys["visits"], "verify"], True, "the comparison")
    check(counts(), {"orders": 4, "users": 4, "visits": 2}, "tables")
    check_log(entry.user_message for entry in instance.all_logs(done.run_id))
    notes()

    some = dg.AssetSelection.assets(keys["users"])
    done = dg.materialize([crm], instance=instance, selection=some, raise_on_error=False)
    check([event.asset_key for event in done.asset_materializations_for_node("crm")], [keys["users"]], "a part")
    check(notes(), ["users success 3 1"], "callbacks of a part")

    only = dg.AssetSelection.checks(dg.AssetCheckKey(keys["visits"], "verify"))
    done = dg.materialize([crm], instance=instance, selection=only)
    check([each.passed for each in done.get_asset_check_evaluations()], [True], "a check alone")
    check(notes(), [], "callbacks of a check alone")
    print("assets, subset, partial success, retries, checks, schema and lineage")


if __name__ == "__main__":
    main()
