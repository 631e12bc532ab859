"""Tracebacks with local variables, as a terminal, a tracker of errors or an orchestrator may show them: no secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb
from typing import Any

import pytest
from rich.pretty import pretty_repr

from syncblocks import load_pipeline
from syncblocks.sync.session.inspection import opened, selected_streams

SECRET = "hunter2-canary"
REFUSED = "127.0.0.1:1"
CONFIGS: dict[str, dict[str, Any]] = {
    "postgres": {"url": f"postgresql://u:{SECRET}@{REFUSED}/d"},
    "mysql": {"url": f"mysql://u:{SECRET}@{REFUSED}/d"},
    "sqlalchemy": {"url": f"mysql+pymysql://u:{SECRET}@{REFUSED}/d"},
    "csv": {"path": f"ftp://u:{SECRET}@{REFUSED}/d"},
    "jsonl": {"path": f"sftp://u:{SECRET}@{REFUSED}/d"},
    "json": {"path": f"http://{REFUSED}/d.json?key={SECRET}"},
    "parquet": {
        "path": "s3://bucket/d",
        "storage_options": {
            "key": "k",
            "secret": SECRET,
            "client_kwargs": {"endpoint_url": f"http://{REFUSED}"},
            "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1},
        },
    },
    "airbyte": {"executable": "/bin/false", "config": {"token": SECRET}, "env": {"TOKEN": SECRET}},
    "singer": {"tap": "tap-x", "executable": "/bin/false", "config": {"token": SECRET}, "env": {"TOKEN": SECRET}},
    "duckdb": {"path": f"/dev/null/{SECRET}.duckdb"},
    "sqlite": {"path": f"/dev/null/{SECRET}.db"},
}


def locals_shown(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield each variable of the frames, also of drivers, as it is shown; of an error and all that it came from."""
    left: list[BaseException | None] = [error]
    while left:
        if (each := left.pop()) is None:
            continue
        left += [each.__cause__, None if each.__suppress_context__ else each.__context__]
        for frame, line in walk_tb(each.__traceback__):
            file = frame.f_code.co_filename
            if file != __file__:
                for name, value in frame.f_locals.items():
                    yield f"{file}:{line} {name}", f"{value!r} {pretty_repr(value)}"


@pytest.mark.parametrize("connector", CONFIGS)
@pytest.mark.parametrize("mistake", ["unreachable", "misspelt", "of another type"])
def test_no_local_variable_of_ours_shows_a_secret(tmp_path: Path, connector: str, mistake: str) -> None:
    wrong = {"unreachable": {}, "misspelt": {"passwrd": SECRET}, "of another type": {"checkpoint_records": SECRET}}
    config = CONFIGS[connector] | wrong[mistake]
    document = {
        "source": {"connector": connector, "config": config},
        "destination": {"connector": "memory", "config": {"database": "x"}},
        "streams": [{"stream": "*"}],
    }
    (tmp_path / "p.yaml").write_text(json.dumps(document).replace(SECRET, "{{ secret('x') }}"))
    pipeline = load_pipeline(tmp_path / "p.yaml", environ={"SYNCBLOCKS_SECRET_X": SECRET})
    with pytest.raises(Exception) as raised, opened(pipeline) as session:  # noqa: PT011 (whatever the connector says)
        selected_streams(session)
    assert SECRET not in str(raised.value)
    found = list(locals_shown(raised.value))
    assert len(found) > 3
    assert [(name, text[:200]) for name, text in found if SECRET in text] == []
