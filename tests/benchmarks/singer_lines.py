"""`singer_lines.py PATH RECORDS`: writes what a tap says of `orders`."""

from __future__ import annotations

import datetime
import hashlib
import json
import sys
from pathlib import Path

#: The JSON Schema of the records.
ORDERS = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "customer_id": {"type": ["null", "integer"]},
        "status": {"type": ["null", "string"]},
        "email": {"type": ["null", "string"]},
        "note": {"type": ["null", "string"]},
        "amount": {"type": ["null", "number"], "multipleOf": 0.01},
        "weight": {"type": ["null", "number"]},
        "is_paid": {"type": ["null", "boolean"]},
        "created_at": {"type": ["null", "string"], "format": "date-time"},
        "due_on": {"type": ["null", "string"], "format": "date"},
    },
}


def write_lines(path: str, records: int) -> None:
    """Write what a tap says of `orders`, as singer-python writes it: about 340 bytes a record, some notes null."""
    schema = {"type": "SCHEMA", "stream": "orders", "schema": ORDERS, "key_properties": ["id"]}
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    with Path(path).open("w") as file:
        file.write(json.dumps(schema) + "\n")
        for number in range(1, records + 1):
            digest = hashlib.md5(str(number).encode()).hexdigest()
            record = {
                "id": number,
                "customer_id": number * 7919 % 100_000,
                "status": ("new", "paid", "shipped", "returned")[number % 4],
                "email": f"customer{number % 100_000}@example.com",
                "note": None if number % 10 == 0 else f"note {digest} täglich",
                "amount": number % 1_000_000 / 100,
                "weight": number**0.5,
                "is_paid": number % 3 == 0,
                "created_at": (start + datetime.timedelta(seconds=number * 37.5)).isoformat(),
                "due_on": str((start + datetime.timedelta(days=number % 2000)).date()),
            }
            file.write(json.dumps({"type": "RECORD", "stream": "orders", "record": record}) + "\n")
        file.write(json.dumps({"type": "STATE", "value": {"bookmarks": {"orders": {"version": 1}}}}) + "\n")


if __name__ == "__main__":
    write_lines(sys.argv[1], int(sys.argv[2]))
