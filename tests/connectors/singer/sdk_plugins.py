"""A tap and a target on singer-sdk, as their authors write them: for what runs such classes in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from singer_sdk import Stream, Tap, Target
from singer_sdk import typing as th
from singer_sdk.sinks import BatchSink


class Orders(Stream):
    name = "orders"
    primary_keys = ["id"]
    replication_key = "updated_at"
    is_sorted = True
    schema = th.PropertiesList(
        th.Property("id", th.IntegerType, required=True),
        th.Property("amount", th.CustomType({"type": ["number", "null"], "multipleOf": 0.01})),
        th.Property("updated_at", th.DateTimeType),
        th.Property("tags", th.ArrayType(th.StringType)),
    ).to_dict()

    def get_records(self, context: Any) -> Iterable[dict[str, Any]]:
        start = self.get_starting_replication_key_value(context) or ""
        for number in range(1, int(self.config["rows"]) + 1):
            if number == self.config.get("fails_at"):
                raise RuntimeError("the shop is closed")
            moment = f"2024-01-01T00:{number // 60:02d}:{number % 60:02d}+00:00"
            if moment >= start:
                yield {"id": number, "amount": Decimal(number) / 100, "updated_at": moment, "tags": ["a", "b"]}


class TapShop(Tap):
    name = "tap-shop"
    config_jsonschema = th.PropertiesList(
        th.Property("rows", th.IntegerType, required=True), th.Property("fails_at", th.IntegerType)
    ).to_dict()

    def discover_streams(self) -> list[Stream]:
        assert threading.current_thread() is not threading.main_thread(), "its handlers would replace ours"
        return [Orders(self)]


class LineSink(BatchSink):
    def process_batch(self, context: dict[str, Any]) -> None:
        if self.config.get("fails"):
            raise RuntimeError("disk full")
        with Path(self.config["path"]).open("a") as file:
            for record in context["records"]:
                print(json.dumps({"stream": self.stream_name, **record}, default=str), file=file)


class TargetLines(Target):
    name = "target-lines"
    default_sink_class = LineSink
    config_jsonschema = th.PropertiesList(
        th.Property("path", th.StringType, required=True), th.Property("fails", th.BooleanType)
    ).to_dict()
