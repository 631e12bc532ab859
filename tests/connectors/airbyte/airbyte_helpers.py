"""Makes connectors, catalogs and pipelines for the tests of `connector: airbyte`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import yaml

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.connectors.registry import make_source

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "stamp": {"type": ["null", "string"]},
        "note": {"type": ["null", "string"]},
    },
}

#: A manifest as small as one can be; the tests' program reads nothing of it.
MANIFEST: dict[str, Any] = {
    "version": "6.0.0",
    "type": "DeclarativeSource",
    "check": {"type": "CheckStream", "stream_names": ["orders"]},
    "streams": [],
    "spec": {
        "type": "Spec",
        "connection_specification": {
            "type": "object",
            "required": ["api_key"],
            "properties": {"api_key": {"type": "string", "airbyte_secret": True}, "pages": {"type": "integer"}},
        },
    },
}


def program(folder: Path, spec: Mapping[str, Any] | None = None) -> Path:
    """Write the scripted connector as a program."""
    path = folder / "source-small"
    script = Path(__file__).with_name("airbyte_program.py").read_text()
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
    if spec is not None:
        path.with_suffix(".spec").write_text(json.dumps(spec))
    return path


def offered(name: str, *, cursor: str | None = "stamp", key: str | None = "id", **changed: Any) -> dict[str, Any]:
    """Return a stream of a catalog; by default INCREMENTAL by `stamp`."""
    modes = ["full_refresh", "incremental"] if cursor else ["full_refresh"]
    return {
        "name": name,
        "json_schema": SCHEMA,
        "supported_sync_modes": modes,
        "source_defined_cursor": bool(cursor),
        "default_cursor_field": [cursor] if cursor else [],
        "source_defined_primary_key": [[key]] if key else [],
        **changed,
    }


def config(folder: Path, *lines: Any, streams: Any = None, **more: Any) -> dict[str, Any]:
    """Return the source's config of a connector that says these lines."""
    own = {
        "streams": streams or [offered("orders"), offered("users")],
        "lines": list(lines),
        "password": "tell-nobody",
        **more.pop("own", {}),
    }
    return {"executable": str(program(folder, more.pop("spec", None))), "config": own, **more}


def source_of(folder: Path, *lines: Any, **more: Any) -> Any:
    return make_source("airbyte", config(folder, *lines, **more), folder)


def pipeline(folder: Path, source: Mapping[str, Any], *streams: Mapping[str, Any], **more: Any) -> Path:
    """Write a pipeline into a DuckDB file; return its path."""
    document = {
        "pipeline": "small",
        "source": {"connector": "airbyte", "config": dict(source)},
        "destination": {"connector": "duckdb", "config": {"path": "out.duckdb"}},
        "streams": list(streams) or [{"stream": "*"}],
        **more,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def run(path: Path, **options: Any) -> RunResult:
    return run_pipeline(load_pipeline(path), **options)


def table(folder: Path, name: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "out.duckdb"), read_only=True) as connection:
        return connection.execute(f'SELECT id, stamp, note FROM "{name}" ORDER BY 1').fetchall()


def ends(result: RunResult) -> dict[str, str | None]:
    """Return the error of each stream; None: it has succeeded."""
    return {each.stream: each.error if each.status != "success" else None for each in result.streams}
