"""Stores and servers of other versions: an old store becomes a new one with what waits in it; servers do not mix."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.errors import StateError
from syncblocks.sync.serve.versions import own_version, refuse_other_versions
from syncblocks.sync.store import Store
from syncblocks.sync.store.owner import current_owner
from tests.conftest import RunCLI
from tests.sync.serve.test_serve_command import RARE, is_over, until, url_of
from tests.sync.store.store_helpers import query
from tests.sync.store.test_open import older
from tests.zygote import Zygote


def write(folder: Path, *pipelines: str) -> None:
    (folder / "rows.csv").write_text("id\n1\n")
    for name in pipelines:
        (folder / f"{name}.yaml").write_text(RARE.replace("crm", name).replace("out.db", f"{name}.db"))


def make_older(url: str, version: str) -> None:
    Store.open(url).close()
    tables = query(url, "SELECT name FROM sqlite_master WHERE name LIKE '_syncblocks%' AND type = 'table'")
    for statement in (*(f"DROP TABLE {name}" for (name,) in tables), *older(url, version)):
        query(url, statement)


@pytest.mark.full
def test_serve_starts_each_tick_that_waits_in_a_store_of_0_1_0_once(tmp_path: Path, zygote: Zygote) -> None:
    """Also one whose process, on another machine, had claimed it for an hour."""
    write(tmp_path, "p1", "p2")
    make_older(url_of(tmp_path), "0011")
    owner = replace(current_owner(), host="other", boot_id="another boot").encode()
    for name, state, holder in (
        ("p1", "waiting", "NULL, NULL"),
        ("p2", "claimed", f"'{owner}', '2099-01-02 03:04:05'"),
    ):
        query(
            url_of(tmp_path),
            "INSERT INTO _syncblocks_tick (pipeline, kind, tick_key, due_at, trigger_id, event, variables, causes, "
            f"state, claims, owner, lease_until) VALUES ('{name}', 'callback', 'k', '2026-01-02 03:04:05.000000', 't', "
            f"'{{}}', '{{}}', '[]', '{state}', 0, {holder})",
        )
    server = zygote.start(tmp_path, ["serve", "--port", "0"])
    ended = "SELECT count(*) FROM _syncblocks_tick WHERE state = 'run'"
    until(server, lambda: Store.servers_of(url_of(tmp_path)) and query(url_of(tmp_path), ended) == [(2,)])
    until(server, lambda: is_over(tmp_path))
    runs = query(url_of(tmp_path), "SELECT pipeline, trigger_id FROM _syncblocks_pipeline_run WHERE pipeline <> 'old'")
    assert sorted(runs) == [("p1", "t"), ("p2", "t")]
    assert "/login?code=" in server.log()
    server.kill()


def test_serve_refuses_to_start_beside_a_server_of_another_version(tmp_path: Path, run_cli: RunCLI) -> None:
    write(tmp_path, "crm")
    with Store.open(url_of(tmp_path)) as store:
        store.report_server("/elsewhere", {}, version=own_version())
        refuse_other_versions(Store.servers_of(url_of(tmp_path)))
        store.report_server("/elsewhere", {}, version="0.0.9")
        done = run_cli(["serve", "--port", "0"], tmp_path)
        assert done.returncode == 2
        assert "a server of syncblocks 0.0.9 uses this run store" in done.stderr
        assert f"folder /elsewhere), this one is {own_version()}" in done.stderr
        store.leave_server()
    assert Store.servers_of(url_of(tmp_path)) == ()


def test_a_server_of_an_older_store_is_seen_before_the_store_is_changed(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    make_older(url, "0015")
    query(
        url,
        f"INSERT INTO _syncblocks_server VALUES ('{current_owner().encode()}', '/f', '{{}}', "
        "'2026-01-02 03:04:05.000000', '2026-01-02 03:04:05.000000')",
    )
    (server,) = Store.servers_of(url)
    assert (server.folder, server.version, server.url) == ("/f", None, None)
    with pytest.raises(StateError, match="without a version"):
        refuse_other_versions([server])
    assert query(url, "SELECT version_num FROM _syncblocks_version") == [("0015",)]
