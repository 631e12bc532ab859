"""The tables of docs/run-store.md name what there is: each table of a new store, each part and its file."""

from __future__ import annotations

import importlib
from pathlib import Path

from syncblocks.sync.store import Store, codecs, table_names
from syncblocks.sync.store.migrations import REVISIONS
from tests.docs import section
from tests.docs import tables as tables_of
from tests.sync.store.store_helpers import query

PAGE = "docs/run-store.md"


def test_the_page_has_a_row_for_each_table_of_a_new_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    Store.open(url).close()
    made = query(url, "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'")
    (documented,) = tables_of(section(PAGE, "Tables"))
    assert set(documented) == {name for (name,) in made}
    assert query(url, f"select version_num from {table_names.VERSION_TABLE}") == [(REVISIONS[-1],)]


def test_the_page_names_the_file_of_each_part() -> None:
    (parts,) = tables_of(section(PAGE, "Parts"))
    for name, (file, _) in parts.items():
        module = importlib.import_module(f"syncblocks.sync.store.{file.strip('`').removesuffix('.py')}")
        assert getattr(module, name).__module__ == module.__name__


def test_each_name_with_a_codec_is_a_column_or_a_value_of_a_statement(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    Store.open(url).close()
    columns = query(
        url,
        "select c.name, c.type from sqlite_master t join pragma_table_info(t.name) c where t.name like '_syncblocks_%'",
    )
    names = {name for name, _ in columns}
    others = codecs.SQLITE_CODECS.keys() - names
    lists = {name for name in others if name.startswith("in_")}
    assert {name.removeprefix("in_") for name in lists} <= names
    assert others - lists == {"now", "earliest"}
    typed = {name for name, kind in columns if kind.startswith(("TIMESTAMP", "BOOLEAN"))}
    assert typed <= codecs.SQLITE_CODECS.keys()
