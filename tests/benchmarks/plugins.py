"""A tap and a target on singer-sdk as their authors write them, for `tap | target`: `plugins.py tap|target ARGUMENTS`.

The target keeps nothing: it does what all targets of the SDK do with a record, so the pipe is as fast as it can be.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from singer_sdk import Stream, Tap, Target
from singer_sdk import typing as th
from singer_sdk.sinks import BatchSink


class Orders(Stream):
    name = "orders"
    primary_keys = ("id",)
    schema = th.PropertiesList(
        th.Property("id", th.IntegerType, required=True),
        th.Property("customer_id", th.IntegerType),
        th.Property("status", th.StringType),
        th.Property("email", th.StringType),
        th.Property("note", th.StringType),
        th.Property("amount", th.NumberType),
        th.Property("is_paid", th.BooleanType),
        th.Property("created_at", th.DateTimeType),
    ).to_dict()

    def get_records(self, context: Any) -> Iterable[dict[str, Any]]:
        start = datetime(2024, 1, 1, tzinfo=UTC)
        for number in range(1, int(self.config["rows"]) + 1):
            yield {
                "id": number,
                "customer_id": number * 7919 % 100_000,
                "status": ("new", "paid", "shipped", "returned")[number % 4],
                "email": f"customer{number % 100_000}@example.com",
                "note": None if number % 10 == 0 else f"note {number:030d}",
                "amount": number % 1_000_000 / 100,
                "is_paid": number % 3 == 0,
                "created_at": (start + timedelta(seconds=number)).isoformat(),
            }


class TapOrders(Tap):
    name = "tap-orders"
    config_jsonschema = th.PropertiesList(th.Property("rows", th.IntegerType, required=True)).to_dict()

    def discover_streams(self) -> list[Stream]:
        return [Orders(self)]


class NullSink(BatchSink):
    def process_batch(self, context: dict[str, Any]) -> None:
        pass


class TargetNothing(Target):
    name = "target-nothing"
    default_sink_class = NullSink
    config_jsonschema = th.PropertiesList().to_dict()


if __name__ == "__main__":
    kind = sys.argv.pop(1)
    (TapOrders if kind == "tap" else TargetNothing).cli()
