"""The streams that an orchestrator declares: from the pipeline file and its catalog file, with no connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncblocks.sync.cli import invoke
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.integrations.declared_streams import declare

#: Neither the variables nor the secrets exist, and nothing listens there.
FILE = """
pipeline: crm
variables: {password: "{{ secret('nowhere') }}", region: eu}
store: "{{ env_var('NOT_SET_STORE') }}"
source: {connector: postgres, config: {url: "{{ env_var('NOT_SET_URL') }}"}}
destination: {connector: mariadb, config: {url: "mariadb://127.0.0.1:1/x"}}
verify: true
streams:
  - {stream: public.orders, tags: [hourly], checks: {total: {">=": 0}}, where: {kind: "{{ env_var('NOT_SET_KIND') }}"}}
  - {stream: "public.users_{{ variables('region') }}", verify: false}
  - {stream: public.old, selected: false}
callbacks: [{file: not_there.py}]
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "crm.yaml"
    file.write_text(text)
    return file


def test_names_come_from_the_file_alone(tmp_path: Path) -> None:
    found = declare(written(tmp_path, FILE))
    assert found.pipeline == "crm"
    assert [stream.name for stream in found.streams] == ["public.orders", "public.users_eu"]
    orders, users = found.streams
    assert (orders.tags, orders.is_checked, orders.is_verified) == (("hourly",), True, True)
    assert (users.tags, users.is_checked, users.is_verified) == ((), False, False)


def test_globs_and_tags_choose_among_them(tmp_path: Path) -> None:
    file = written(tmp_path, FILE)
    assert [stream.name for stream in declare(file, streams=["*users*"]).streams] == ["public.users_eu"]
    assert [stream.name for stream in declare(file, tags=["hourly"]).streams] == ["public.orders"]
    with pytest.raises(ConfigError, match=r"did you mean 'public.orders'"):
        declare(file, streams=["public.order"])


def test_a_pattern_needs_a_catalog_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'public\.\*' is a pattern.*discover --save"):
        declare(written(tmp_path, FILE.replace("public.orders", "public.*")))


def test_a_secret_in_the_name_of_a_stream_is_refused_where_it_stands(tmp_path: Path) -> None:
    file = written(tmp_path, FILE.replace("variables('region')", "variables('password')"))
    with pytest.raises(ConfigError) as caught:
        declare(file)
    line = FILE.splitlines().index("  - {stream: \"public.users_{{ variables('region') }}\", verify: false}") + 1
    assert str(caught.value).startswith(f"{file}:{line}: streams[1].stream: ")


def test_patterns_match_what_discover_has_saved_and_views_by_name_only(tmp_path: Path) -> None:
    import duckdb

    with duckdb.connect(str(tmp_path / "crm.duckdb")) as connection:
        connection.execute("create table orders (id int primary key, total decimal(12,2)); create table users (id int)")
        connection.execute("create view big as select * from orders; create view small as select * from orders")
    file = written(
        tmp_path,
        "source: {connector: duckdb, config: {path: crm.duckdb}}\n"
        "destination: {connector: sqlite, config: {path: out.db}}\n"
        "catalog: crm.catalog.yaml\n"
        "streams: [{stream: '*'}, {stream: small}]\n",
    )
    text = file.read_text()
    file.write_text(text.replace("catalog: crm.catalog.yaml\n", ""))
    assert invoke(["discover", "--save", str(file)]) == 0
    file.write_text(text)
    (tmp_path / "crm.duckdb").unlink()  # nothing is there to connect to any more
    found = {stream.name: stream for stream in declare(file).streams}
    assert sorted(found) == ["orders", "small", "users"]
    assert found["orders"].columns == {"id": "int32", "total": "decimal(12,2)"}
    assert found["orders"].key_properties == ("id",)


def test_a_mapping_is_declared_as_a_file_is(tmp_path: Path) -> None:
    given = {"pipeline": "m", "source": {"connector": "nowhere"}, "streams": [{"stream": "a"}, {"stream": "b"}]}
    assert [stream.name for stream in declare(given).streams] == ["a", "b"]
    with pytest.raises(ConfigError, match="streams"):
        declare({"pipeline": "m", "streams": "a, b"})


def test_one_text_in_place_of_a_list_is_an_error_that_writes_the_list(tmp_path: Path) -> None:
    text: Any = "public.orders"
    with pytest.raises(ConfigError, match=r"streams: takes a list: write \['public.orders'\]"):
        declare(written(tmp_path, FILE), streams=text)
