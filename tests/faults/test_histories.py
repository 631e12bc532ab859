"""Options of pipelines in pairs, histories of two or three runs, and an oracle that knows what must come of them.

`SYNCBLOCKS_HISTORIES=seed` draws the same histories again; each session draws others, and prints its seed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.cli.errors import describe
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.verify.verification import StreamVerification, verify_streams
from tests import services
from tests.faults.histories import FILES, History, Turn, disposition, drawn, seed
from tests.faults.history_oracle import Event, Oracle, Outcome
from tests.faults.history_places import Place, moment, records, shown

pytestmark = pytest.mark.full

COUNT = 300 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 30

TOLD = """
import json
from pathlib import Path

def _tell({first}kwargs):
    run = kwargs["block_run"]
    frame = {frame}
    line = dict(status=run.status if run else None, rows=run.rows, rejected=run.rows_rejected)
    line["status"] = kwargs["_status"]
    line["frame"] = None if frame is None else [len(frame), sorted(frame.columns)]
    with open(Path(__file__).with_suffix(".log"), "a") as log:
        log.write(json.dumps(line) + "\\n")

"""
#: How callbacks ask for data.
ASKS = {
    "facts": "@callback('{0}')\ndef on_{0}(**kwargs):\n    _tell(None, {{**kwargs, '_status': '{0}'}})\n",
    "data": "@callback('{0}')\ndef on_{0}(df, **kwargs):\n    _tell(df, {{**kwargs, '_status': '{0}'}})\n",
    "input": "@callback('{0}')\ndef on_{0}(**kwargs):\n"
    "    _tell(next(iter(kwargs['__input'].values()), None), {{**kwargs, '_status': '{0}'}})\n",
}
STATUSES = ("success", "failure", "cancelled")
PARENTS = ("load", "export", "stream")


@cache
def histories() -> list[History]:
    return drawn(seed(), COUNT)


@pytest.fixture(scope="module")
def servers() -> Iterator[Mapping[tuple[str, str], str]]:
    """Two databases of each server; every history has tables of its own."""
    with (
        services.fresh_postgres_database() as one,
        services.fresh_postgres_database() as two,
        services.fresh_mariadb_database() as three,
        services.fresh_mariadb_database() as four,
    ):
        yield {
            ("postgres", "source"): one,
            ("postgres", "destination"): two,
            ("mariadb", "source"): three,
            ("mariadb", "destination"): four,
        }


class Bench:
    """A pipeline with the options of one history; it lives through it, and says where it went wrong."""

    def __init__(self, folder: Path, number: int, history: History, servers: Mapping[tuple[str, str], str]) -> None:
        self.folder, self.history, self.options = folder, history, history.options
        table = f"t{number}"
        self.source, self.destination = (
            Place(self.options[side], self._config(side, self.options[side], table, servers), table)
            for side in ("source", "destination")
        )
        self.oracle = Oracle(self.options)
        self.wrong: list[str] = []
        self.said = ""
        self.bookmark: Mapping[str, Any] | None = None
        if self.options["callbacks"] != "none":
            for parent in PARENTS:
                functions = "".join(ASKS[self.options["callbacks"]].format(status) for status in STATUSES)
                text = TOLD.format(first="frame, ", frame="frame") + functions
                (folder / f"of_{parent}.py").write_text(text)

    def _config(self, side: str, system: str, table: str, servers: Mapping[tuple[str, str], str]) -> dict[str, Any]:
        if (system, side) in servers:
            more = {"settle_s": 1} if side == "source" else {}
            return {"url": servers[system, side], **more}
        ending = f"{side}.{system}" if system not in FILES else side if side == "destination" else f"{table}.{system}"
        return {"path": str(self.folder / ending)}

    # ------------------------------------------------------------------------- a run
    def write(self, turn: Turn) -> Path:
        """Write the pipeline file as it is at one run."""
        options = self.options
        stream: dict[str, Any] = {
            "stream": self._stream_name(),
            "destination_table": self.destination.table,
            "replication_method": options["method"],
            "write_disposition": options["disposition"],
            "range_column": "n" if options["disposition"] == "replace_range" else None,
            "bookmark_properties": list(self.oracle.marks) if options["method"] == "INCREMENTAL" else None,
            "null_bookmarks": options["null_bookmarks"],
            "on_schema_change": options["on_schema_change"],
            "unique_conflict_method": options["conflict"],
            "on_rejected": options["on_rejected"],
            "key_properties": {"configured": ["id"], "none": []}.get(options["keys"]),
        }
        sides = {name: value for name in ("include", "exclude") if (value := getattr(turn, name))}
        document: dict[str, Any] = {
            "pipeline": self.destination.table,
            "source": {"block": "load", "connector": options["source"], "config": self.source.config},
            "destination": {
                "block": "export",
                "connector": options["destination"],
                "config": self.destination.config,
            },
            "streams": [{**stream, "columns": {k: list(v) for k, v in sides.items()} or None}],
        }
        if turn.rename is not None:
            made = 'df.assign(twice=df["n"] * 2)' if turn.adds else "df"
            if turn.fails:
                made = "df['of no record']"
            (self.folder / "shape.py").write_text(f"@transformer\ndef shape(df):\n    return {made}\n")
            document["transformers"] = [{"file": "shape.py", "rename": dict(turn.rename)}]
        if options["callbacks"] != "none":
            document["callbacks"] = [{"file": f"of_{parent}.py", "on": [parent]} for parent in PARENTS]
        path = self.folder / "history.yaml"
        path.write_text(json.dumps(document))
        return path

    def _stream_name(self) -> str:
        schemas = {"postgres": "public", "mariadb": self.source.config.get("url", "").rpartition("/")[2]}
        schema = schemas.get(self.options["source"])
        return f"{schema}.{self.source.table}" if schema else self.source.table

    def run(self, turn: Turn, path: Path) -> int:
        try:
            result = run_pipeline(path, inline_callbacks=True)
            self.said = "; ".join(str(stream.error) for stream in result.streams if stream.error)
            self.bookmark = result.streams[0].bookmark if result.streams else None
            return result.exit_code
        except Exception as error:
            self.said = str(error)
            return describe(error).exit_code

    def events(self) -> dict[str, list[dict[str, Any]]]:
        """Return what callbacks were told since the last call, by parent."""
        found = {}
        for parent in PARENTS:
            log = self.folder / f"of_{parent}.log"
            found[parent] = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
            log.unlink(missing_ok=True)
        return found

    # ------------------------------------------------------------------- and its checks
    def live(self) -> None:
        """Go through the whole history, up to what is wrong."""
        for number, turn in enumerate(self.history.turns, start=1):
            self.source.put(turn.source, self.options["clock"], has_key=self.options["keys"] == "declared")
            expected = self.oracle.run(turn)
            path = self.write(turn)
            self._check(f"run {number}", expected, self.run(turn, path))
            if expected.exit_code == 0 and not self._is_at_the_bookmark(f"run {number}"):
                return
            is_repaired = not self.wrong and expected.exit_code == 0 and self._look(f"after run {number}", turn, path)
            if self.wrong or (expected.exit_code == 0 and not is_repaired):
                return

    def _check(self, when: str, expected: Outcome, code: int) -> None:
        if code != expected.exit_code:
            self.wrong.append(f"{when}: exit code {code}, expected {expected.exit_code} {self.said}")
        self._check_table(when)
        found = self.events()
        if self.options["callbacks"] == "none" or self.wrong:
            return
        for parent in PARENTS:
            wanted = [event for event in expected.events if event.parent == parent]
            if len(wanted) != len(found[parent]):
                self.wrong.append(f"{when}: {parent} was told {found[parent]}, expected {wanted}")
                continue
            self.wrong += [
                f"{when}: {parent} was told {told}, expected {event}"
                for event, told in zip(wanted, found[parent], strict=True)
                if not self._is_told(event, told)
            ]

    def _is_at_the_bookmark(self, when: str) -> bool:
        """Return whether the bookmark is where it must be."""
        if self.oracle.bookmark is None:
            return True
        at = shown({"at": (self.bookmark or {}).get("at")})
        wanted = shown({"at": moment(self.options["clock"], self.oracle.bookmark[0])})
        # Whoever else writes in the same server keeps the bookmark back.
        if at != wanted and self.options["source"] != "mariadb":
            self.wrong.append(f"{when}: the bookmark is {at}, expected {wanted}")
        return at == wanted

    def _is_told(self, event: Event, told: Mapping[str, Any]) -> bool:
        if event.may_be_cancelled and told["status"] == "cancelled":
            return True
        frame = told["frame"]
        facts = [(event.status, told["status"]), (event.rows, told["rows"]), (event.rejected, told["rejected"])]
        if event.rows is not None and self.options["callbacks"] != "facts":
            # Without records a transformer is not called, and nobody knows its columns.
            columns = sorted(event.frame_columns) if event.rows and event.frame_columns else None
            facts += [(event.frame_rows, frame and frame[0]), (columns, frame and frame[1])]
        return all(wanted is None or wanted == found for wanted, found in facts)

    def _check_table(self, when: str) -> None:
        clock, table = self.options["clock"], self.oracle.table
        held = self.destination.held()
        found, wanted = sorted(tuple(sorted(row.items())) for row in held or ()), records(table or (), clock)
        if found != wanted or (held is None and table is not None):
            self.wrong.append(f"{when}: the table holds {held and found}, expected {table and wanted}")

    # --------------------------------------------------------------------------- verify
    def _look(self, when: str, turn: Turn, path: Path) -> bool:
        """Verify and repair as the options say; return whether the history can go on."""
        after = self.options["after"]
        if after == "nothing":
            return True
        is_keyed_copy = disposition(self.options) != "append"
        if after.startswith("damage") and is_keyed_copy and turn.rename is None:
            damaged = self.oracle.damage()
            if damaged is not None:
                self.destination.damage(*damaged)
        found = self.verify(path, with_repairs="repair" in after)
        wanted = self.oracle.verdict(turn)
        if wanted is not None and found.verdict != wanted:
            self.wrong.append(f"{when}: verify says {found.verdict} {found.notes}, expected {wanted}")
            return False
        if found.repair is None:
            if "repair" in after and wanted == "differs" and self.oracle.has_key and is_keyed_copy:
                return bool(self.options["conflict"])  # IGNORE: only what is missing is repaired
            return wanted is not None
        if wanted is None:
            return False
        result = run_pipeline(path, inline_callbacks=True, repairs={found.stream: found.repair})
        is_known = self.oracle.repair(turn)
        self.events()
        if result.exit_code != 0:
            self.wrong.append(f"{when}: the repair ended with {result.exit_code}: {result}")
        if is_known:
            self._check_table(f"{when}, repaired")
            again, wanted = self.verify(path).verdict, self.oracle.verdict(turn)
            if again != wanted:
                self.wrong.append(f"{when}: verify says {again} of what was repaired, expected {wanted}")
        return is_known

    def verify(self, path: Path, *, with_repairs: bool = False) -> StreamVerification:
        pipeline = load_pipeline(path)
        with opened(pipeline) as session, existing_store(pipeline) as store:
            (found,) = verify_streams(session, make_plan(session, store), with_repairs=with_repairs)
        return found


@pytest.mark.parametrize("number", range(COUNT))
def test_a_history_ends_as_the_oracle_says(
    folder: Path, servers: Mapping[tuple[str, str], str], caplog: pytest.LogCaptureFixture, number: int
) -> None:
    caplog.set_level(logging.CRITICAL)
    bench = Bench(folder, number, histories()[number], servers)
    bench.live()
    assert not bench.wrong, f"SYNCBLOCKS_HISTORIES={seed()} number {number}: {bench.history}: {'; '.join(bench.wrong)}"
