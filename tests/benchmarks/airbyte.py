"""A connector of Airbyte's from PyPI into Postgres, beside its own speed."""

from __future__ import annotations

import json
from collections.abc import Callable

from syncblocks.connectors.programs.environments import installed
from tests.benchmarks.bench import Bench, Figure, figures
from tests.benchmarks.measure import alternate

FAKER = "airbyte-source-faker==7.2.1"


def faker(bench: Bench) -> list[Figure]:
    """A package into Postgres; the limit is the connector alone, its output thrown away."""
    destination = bench.database()
    config = {"count": bench.rows, "seed": 1, "records_per_slice": 1000, "parallelism": 1}
    source = {"connector": "airbyte", "config": {"package": FAKER, "config": config, "discovery_cache_s": 86_400}}
    streams = [{"stream": "users", "replication_method": "FULL_TABLE", "write_disposition": "replace"}]
    pipeline = bench.pipeline("faker", source, {"connector": "postgres", "config": {"url": destination}}, streams)
    sync = bench.sync(pipeline)
    sync()  # installs the connector and discovers
    program = installed(FAKER, program="source-faker", python="", folder=pipeline.parent, timeout_s=600)
    folder = bench.folder / "alone"
    folder.mkdir()
    stream = {"name": "users", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}
    chosen = {"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "append"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "catalog.json").write_text(json.dumps({"streams": [chosen]}))
    command = [program, "read", "--config", folder / "config.json", "--catalog", folder / "catalog.json"]
    taken = alternate({"source | cat": lambda: bench.run(command, ["cat"]), "through us": sync}, bench.repeat)
    assert bench.execute(destination, "select count(*), count(distinct id) from users") == [(bench.rows, bench.rows)]
    return figures("airbyte faker to postgres", bench.rows, taken, limit="source | cat", least=0.9)


#: Name on the command line -> scenario.
SCENARIOS: dict[str, Callable[[Bench], list[Figure]]] = {"airbyte-faker": faker}
