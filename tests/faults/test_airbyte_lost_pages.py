"""APIs with strange answers in the middle of pages: no page is lost without a message, whatever the CDK's log masks."""

from __future__ import annotations

import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.connectors.airbyte.program import program_of
from syncblocks.connectors.airbyte.settings import AirbyteSettings
from tests.faults.conftest import Count
from tests.thinned import only_full
from tests.web_api import STRANGE, Api, serving
from tests.web_manifest import PAGES, manifest, stream

# Airbyte's reader of manifests costs two seconds for each start, and is installed first.
pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

#: Words of the messages, and parts of them: a secret is one of these.
SENTENCES = (
    "Failed to parse JSON data using json library. Expecting value: line 1 column 1 (char 0)",
    "An answer does not have the field of the records (data), so no record of it is read",
    "The connector ignores an answer and its records: HTTP status 403",
    "Marking stream html as STARTED COMPLETE ERROR WARN LOG syncblocks is_page_lost",
)

RECORDS = 60
PAGE = 10

#: Streams with a strange answer whose run cannot know whether records are missing: it reports them.
REPORTED = ("document", "ignored", "bare")
#: Streams whose connector runs without the launcher, and whose answer leaves no line in the log then.
SILENT = ("null", "document", "ignored")


def secrets(chance: random.Random) -> list[str]:
    """Return secrets of 1 to 8 characters, each a part of a message."""
    found = []
    for _ in range(3):
        sentence = chance.choice(SENTENCES)
        start = chance.randrange(len(sentence) - 8)
        found.append(sentence[start : start + chance.randint(1, 8)])
    return [each for each in found if each.strip()] or ["t"]


def moment(seconds: int) -> str:
    return f"2026-01-01T00:{seconds // 60:02d}:{seconds % 60:02d}Z"


def shop(chance: random.Random, kinds: list[str]) -> dict[str, Any]:
    """Return a manifest with a stream for each kind of answer, and one with usual answers."""
    streams = []
    for name in kinds:
        is_incremental = chance.random() < 0.5
        slices = {"step": "PT30S", "until": moment(RECORDS - 1)} if is_incremental and chance.random() < 0.5 else {}
        made = stream(name, paging=chance.choice(sorted(PAGES)), is_incremental=is_incremental, **slices)
        paginator = made["retriever"]["paginator"] = deepcopy(made["retriever"]["paginator"])
        if "page_size" in paginator["pagination_strategy"]:
            paginator["pagination_strategy"]["page_size"] = PAGE
        if name == "bare":  # without a key, by which a record that reports an error would be refused
            made = stream(name, paging="link", is_incremental=False)
            made["retriever"]["record_selector"]["extractor"]["field_path"] = []
            del made["primary_key"]
        if name == "ignored":
            ignores = {"type": "HttpResponseFilter", "action": "IGNORE", "http_codes": [401, 403]}
            handler = {"type": "DefaultErrorHandler", "response_filters": [ignores]}
            made["retriever"]["requester"]["error_handler"] = handler
        streams.append(made)
    keys = {f"key_{number}": {"type": "string", "airbyte_secret": True} for number in range(3)}
    return manifest(*streams, **keys)


def rows(folder: Path, name: str) -> list[int | None]:
    if not (folder / "out.duckdb").exists():
        return []
    with duckdb.connect(str(folder / "out.duckdb"), read_only=True) as connection:
        if not connection.execute("from duckdb_tables() where table_name = ?", [name]).fetchall():
            return []
        return [id for (id,) in connection.execute(f'select id from "{name}" order by id').fetchall()]


@pytest.mark.parametrize("is_launched", [True, False])
@pytest.mark.parametrize("seed", ["1", *only_full(*map(str, range(2, 31)))])
def test_no_page_is_lost_without_a_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    airbyte_plugins: dict[str, str],
    injected: Count,
    seed: str,
    is_launched: bool,
) -> None:
    chance = random.Random(f"{seed} {is_launched}")
    monkeypatch.setenv("SYNCBLOCKS_PLUGINS", airbyte_plugins["SYNCBLOCKS_PLUGINS"])
    kinds = [*STRANGE, "ignored", "bare", "usual"]
    chance.shuffle(kinds)
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(shop(chance, kinds)))
    records = [{"id": n, "user_id": None, "updated_at": moment(n), "note": f"n{n}"} for n in range(RECORDS)]
    given = {f"key_{number}": secret for number, secret in enumerate(secrets(chance))}
    strange = {f"/{kind}": (chance.randint(1, 4), kind) for kind in STRANGE}
    strange["/bare"] = (chance.randint(1, 4), "document")
    strange["/ignored"] = (chance.randint(1, 4), chance.choice(["401", "403"]))
    with serving(Api({name: list(records) for name in kinds}, page=PAGE, strange=strange)) as api:
        source: dict[str, Any] = {"manifest": "shop.yaml", "config": {"url": api.url, **given}}
        if not is_launched:
            source["executable"] = str(program_of(AirbyteSettings(manifest="shop.yaml"), tmp_path))
        document = {
            "pipeline": "shop",
            "allow_blocks_to_fail": True,
            "source": {"connector": "airbyte", "config": {**source, "checkpoint_records": 1, "checkpoint_s": 0}},
            "destination": {"connector": "duckdb", "config": {"path": "out.duckdb"}},
            "streams": [
                {"stream": "*", "write_disposition": chance.choice(["merge", "append"])},
                {"stream": "bare", "write_disposition": "replace"},
            ],
        }
        (tmp_path / "shop.yml").write_text(yaml.safe_dump(document))
        result = run_pipeline(load_pipeline(tmp_path / "shop.yml"))
        injected(sum(api.asked[path] >= number for path, (number, _) in strange.items()))
        found = [*wrong(tmp_path, result, kinds, is_launched=is_launched)]
        api.strange = {}
        again = run_pipeline(load_pipeline(tmp_path / "shop.yml"))
    failed = [each.stream for each in result.streams if each.status != "success"]
    whole = list(range(RECORDS))
    found += [f"{name} after the next run: {rows(tmp_path, name)}" for name in failed if rows(tmp_path, name) != whole]
    found += [f"the next run: {each.stream}: {each.error}" for each in again.streams if each.status != "success"]
    assert found == [], f"secrets {given}, strange answers {strange}: {result!r}"


def wrong(folder: Path, result: RunResult, kinds: list[str], *, is_launched: bool) -> list[str]:
    """Return the streams that lack records without a message, and a stream that fails without a strange answer."""
    found = []
    for name in kinds:
        ended = result.streams[name]
        is_whole = rows(folder, name) == list(range(RECORDS))
        if is_launched and name == "usual" and not (is_whole and ended.status == "success"):
            found.append(f"{name}: {ended.status} {ended.error}")
        if is_whole or ended.status != "success" or (not is_launched and name in SILENT):
            continue
        if name not in REPORTED:
            found.append(f"{name} is called complete with {rows(folder, name)}")
        elif not ended.warnings:
            found.append(f"{name} is not reported, and has {rows(folder, name)}")
    return found
