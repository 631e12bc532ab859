"""Pipeline files, damaged: a pipeline, or one error that names a place; within two seconds whatever they hold."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from syncblocks.sync.config import load_pipeline
from syncblocks.sync.errors import ConfigError
from tests.budget import within
from tests.fuzz.loop import damaged

GOOD = b"""pipeline: shop
variables: {region: eu, n: 1}
concurrency: 2
source:
  block: load
  connector: csv
  config: {path: data, types: {zip: string}}
destination: &to {connector: duckdb, config: {path: "{{ variables('region') }}.duckdb"}}
streams:
  - stream: "*"
    replication_method: INCREMENTAL
    bookmark_properties: [at]
    columns: {exclude: [a, b]}
  - stream: users
    destination_table: dim_{{ stream | table }}
callbacks:
  - {shell: "echo done", on: [load, stream], status: [success]}
"""
WORDS = (
    *(b"&a ", b"*a", b"*to", b"<<: *to\n", b"[" + b", ".join([b"*to"] * 9) + b"]"),
    *(b"[" * 60, b"{a: " * 60, b"? ", b"|\n", b"'", b"\t", b"- ", b": ", b"#", b"%YAML 1.1\n---\n"),
    *(b"!!python/object:os.system ", b"{{", b"}}", b"{% for x in y %}", b"{{ variables('region') * 99 }}"),
    *(b"0x1", b"1e9", b"no", b"9" * 5000, b"\xff\xfe", b"\0"),
)


def fuzzer(_prepared: str) -> Callable[[random.Random], str]:
    folder = tempfile.TemporaryDirectory(prefix="syncblocks-fuzz-")

    def once(chance: random.Random) -> str:
        text = GOOD
        for _ in range(chance.choice((0, 1, 1, 2, 4))):
            at = chance.randrange(len(text) or 1)
            text = text[:at] + chance.choice(WORDS) + text[at + chance.randrange(6) :]
        if chance.random() < 0.3:
            text = damaged(text, chance)
        file = Path(folder.name, "p.yaml")
        file.write_bytes(text)
        with within(2):
            try:
                load_pipeline(file)
            except ConfigError:
                return "refused"
        return "loaded"

    return once
