"""What callbacks cost the records."""

from __future__ import annotations

from tests.benchmarks.bench import DUCKDB_FILE, Bench, Figure, duckdb, figures, postgres
from tests.benchmarks.measure import alternate

_NOTHING = "@callback\ndef nothing(**kwargs):\n    pass\n"
_NO_INPUT = "@callback('success', fetch_inputs=False)\ndef nothing(data, **kwargs):\n    assert data is None\n"
_DATA = "@callback\ndef look(data, **kwargs):\n    assert len(data) == kwargs['block_run'].rows\n"


def callbacks(bench: Bench) -> list[Figure]:
    """A callback that asks for no data costs nothing, one that does a tenth; compared with no callback."""
    source = bench.database()
    bench.orders(source, "orders", bench.rows)
    cases = {"none": None, "no input": _NO_INPUT, "kwargs only": _NOTHING, "DataFrame": _DATA}
    pipelines = {
        name: bench.pipeline(
            name.replace(" ", "_").lower(), postgres(source), duckdb(), [{"stream": "public.orders"}], callback=file
        )
        for name, file in cases.items()
    }
    taken = alternate({name: bench.sync(pipeline) for name, pipeline in pipelines.items()}, bench.repeat)
    for pipeline in pipelines.values():
        bench.check_duckdb(source, "orders", pipeline.with_name(DUCKDB_FILE))
    return figures("callbacks, postgres to duckdb", bench.rows, taken, limit="none", least=0.9)


__all__ = ["callbacks"]
