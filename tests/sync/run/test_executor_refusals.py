"""What cannot run on other machines is refused before anything runs, with both settings named."""

from __future__ import annotations

import concurrent.futures
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError, ExecutorError
from syncblocks.sync.run.executors.bundle import open_bundle, pack, unpack, unpacked
from syncblocks.sync.run.executors.futures import FuturesEngine
from syncblocks.sync.run.executors.opening import check_engine, open_engine, with_executor
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from tests.conftest import RunCLI

STORE = "postgresql://127.0.0.1/store"
TABLES = {"a": {"columns": {"id": "int64"}, "key": ["id"], "records": [{"id": 1}]}}


def document(**more: Any) -> dict[str, Any]:
    return {
        "pipeline": "p",
        "store": STORE,
        "executor": {"dask": "tcp://127.0.0.1:1"},
        "source": {"connector": "memory", "config": {"tables": TABLES}},
        "destination": {"connector": "sqlite", "config": {"path": "out.db"}},
        "streams": [{"stream": "*"}],
        **more,
    }


def refusal(folder: Path, **more: Any) -> str:
    """Return why `plan` refuses; empty if it does not."""
    for name, text in (("tell.py", "@callback\ndef tell(df): ...\n"), ("clean.py", "@transformer\ndef f(df): ...\n")):
        (folder / name).write_text(text)
    try:
        with opened(load_pipeline(document(**more), folder=folder)) as session:
            make_plan(session, None)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"store": None}, ("executor", "store", "SQLite file", "postgresql://")),
        ({"store": "sqlite:///x.db"}, ("executor", "store", "SQLite file")),
        ({"store": "postgresql://me:hush-hush@db/x"}, ("store", "executor", "a secret is written in the file")),
        (
            {"destination": {"connector": "duckdb", "config": {"path": "x.duckdb"}}},
            ("destination.connector", "executor", "'duckdb'", "only one process at a time", "executor: threads"),
        ),
        (
            {"source": {"connector": "memory", "config": {"database": "here"}}},
            ("source.connector", "executor", "'memory'"),
        ),
        ({"callbacks": [{"file": "tell.py"}]}, ("executor", "callbacks want the data", "spool", "fetch_inputs=False")),
        (
            {"callbacks": [{"file": "tell.py"}], "executor": {"dask": "tcp://a:1", "spool": "nowhere://x/y"}},
            ("executor.spool", "nowhere:// cannot be opened"),
        ),
        (
            {"callbacks": [{"file": "tell.py"}], "executor": {"dask": "tcp://a:1", "spool": "sftp://me:hush-hush@h/y"}},
            ("executor.spool", "holds a password"),
        ),
        (
            {"callbacks": [{"file": "tell.py"}], "executor": {"dask": "tcp://a:1", "spool": "sftp://127.0.0.1:1/y"}},
            ("executor.spool", "sftp:// is no place for it", "object store"),
        ),
        ({"transformers": [{"file": "../clean.py"}]}, ("transformers[0].file", "executor", "put the file below it")),
    ],
)
def test_a_pipeline_that_cannot_run_elsewhere_is_refused(
    tmp_path: Path, settings: dict[str, Any], words: tuple[str, ...]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "clean.py").write_text("@transformer\ndef f(df): ...\n")
    if settings.get("source", {}).get("config") == {"database": "here"}:
        from syncblocks.connectors.memory import database
        from syncblocks.connectors.memory.settings import TableSettings, to_table

        database("here").tables["a"] = to_table("a", TableSettings(**TABLES["a"]))
    found = refusal(tmp_path / "in", **settings)
    assert [word for word in words if word not in found] == [], found
    assert "hush-hush" not in found


def test_plan_says_where_streams_run(tmp_path: Path) -> None:
    for executor, words in (("threads", ""), ({"dask": "local"}, "dask: local, on workers of this machine")):
        with opened(load_pipeline(document(executor=executor), folder=tmp_path)) as session:
            assert make_plan(session, None).elsewhere == words


def test_workers_here_are_refused_where_every_user_could_give_them_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with (
        opened(load_pipeline(document(executor={"dask": "local"}), folder=tmp_path)) as session,
        pytest.raises(ConfigError, match=r"`dask: local` needs cryptography: pip install 'syncblocks\[dask\]'"),
    ):
        open_engine(session, None)


def test_plan_warns_of_a_cluster_without_certificates(tmp_path: Path) -> None:
    for executor, is_open in (
        ({"dask": "tcp://a:1"}, True),
        ({"dask": "tls://a:1"}, False),
        ({"dask": "local"}, False),
    ):
        with opened(load_pipeline(document(executor=executor), folder=tmp_path)) as session:
            warned = [each for each in make_plan(session, None).warnings if each.startswith("executor")]
        assert len(warned) == is_open
        assert all("tcp://a:1" in each and "tls://" in each for each in warned)


def test_a_pipeline_that_can_run_elsewhere_is_planned(tmp_path: Path) -> None:
    assert refusal(tmp_path) == ""
    assert refusal(tmp_path, callbacks=[{"file": "tell.py"}], executor={"dask": "local"}) == ""
    spooled = {"dask": "tcp://127.0.0.1:1", "spool": "shared"}
    assert refusal(tmp_path, callbacks=[{"file": "tell.py"}], executor=spooled) == ""


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        ("dask", "must be threads, or a mapping with dask"),
        ({}, "needs dask"),
        ({"dask": "host:8786"}, "tcp://HOST:PORT"),
        ({"dask": "local", "worker": 3}, "did you mean 'workers'?"),
        ({"dask": "tcp://a:1", "workers": 3}, "`workers` needs `dask: local`"),
        ({"dask": "tcp://a:1", "security": {"ca": "a", "cert": "b", "key": "c"}}, "begins with tls://"),
        ({"dask": "tls://a:1", "security": {"ca": "a"}}, "executor.security"),
        ({"dask": "local", "workers": 0}, "executor.workers"),
    ],
)
def test_a_mistake_in_executor_says_what_is_right(tmp_path: Path, executor: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(document(executor=executor), folder=tmp_path)
    assert words in str(caught.value)


def test_an_executor_of_the_caller_goes_before_the_files(tmp_path: Path) -> None:
    pipeline = load_pipeline(document(), folder=tmp_path)
    assert not with_executor(pipeline, "threads").executor.is_elsewhere
    assert with_executor(pipeline, "tcp://b:2").executor.dask == "tcp://b:2"
    assert with_executor(pipeline, {"dask": "local", "workers": 2}).executor.workers == 2
    assert with_executor(pipeline, None) is pipeline
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert with_executor(pipeline, pool).executor.is_elsewhere
    for wrong in ("dask", 7, object()):
        with pytest.raises(ConfigError, match="executor"):
            with_executor(pipeline, wrong)


def test_a_cluster_that_is_not_there_runs_nothing(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncblocks.sync.run.executors.dask.CONNECT_S", 1.0)
    with pytest.raises(ExecutorError, match="cannot be used"):
        run_pipeline(document(store=postgres_url), executor="tcp://127.0.0.1:1")
    import psycopg

    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select to_regclass('_syncblocks_pipeline_run')").fetchone() == (None,)


def test_check_looks_at_the_cluster_and_its_certificates(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch, run_cli: RunCLI
) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate")
    security = {"ca": "none.pem", "cert": "cert.pem", "key": "key.pem"}
    secured = {"dask": "tls://127.0.0.1:1", "security": security}
    (tmp_path / "p.yaml").write_text(json.dumps(document(store=postgres_url, executor=secured)))
    found = run_cli(["check", "p.yaml"], tmp_path)
    assert found.returncode == 2
    assert f"executor.security.ca: {tmp_path}/none.pem: no PEM that TLS can use: No such file" in found.stderr
    import distributed

    (tmp_path / "none.pem").write_text(distributed.Security.temporary().tls_ca_file)
    with opened(load_pipeline(tmp_path / "p.yaml")) as session, pytest.raises(ConfigError, match=r"security\.cert"):
        check_engine(session)
    monkeypatch.setattr("syncblocks.sync.run.executors.dask.CONNECT_S", 1.0)
    with (
        opened(load_pipeline(document(store=postgres_url), folder=tmp_path)) as session,
        pytest.raises(ExecutorError, match="cannot be used"),
    ):
        check_engine(session)


class Waiting(concurrent.futures.Executor):
    """An executor all of whose workers are busy."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, concurrent.futures.Future[Any]]] = []

    def submit(self, function: Any, /, *arguments: Any, **_: Any) -> concurrent.futures.Future[Any]:
        self.calls.append((arguments[2], concurrent.futures.Future()))
        return self.calls[-1][1]


def test_a_call_is_sent_once_more_with_the_code_that_its_worker_lacks_and_can_be_withdrawn(tmp_path: Path) -> None:
    executor, answers = Waiting(), list[Any]()
    engine = FuturesEngine(executor, load_pipeline(document(), folder=tmp_path))
    withdraw = engine.submit("{}", answers.append)
    executor.calls[0][1].set_result('{"missing": "code"}')
    withdraw()
    assert [archive is None for archive, _ in executor.calls] == [True, False]
    assert executor.calls[1][1].cancelled()
    engine.submit("{}", answers.append)
    executor.calls[2][1].set_result('{"missing": "code"}')
    executor.calls[3][1].set_result('{"missing": "code"}')
    assert (answers, len(executor.calls)) == ([None, {"missing": "code"}], 4)


# -- what travels ----------------------------------------------------------------------------------------------------


def test_what_travels_has_transformers_and_no_secret_no_callback_and_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "canary-in-the-environment")
    (tmp_path / "code" / "deep").mkdir(parents=True)
    (tmp_path / "code" / "clean.py").write_text("import deep.words\n\n@transformer\ndef f(df):\n    return df\n")
    (tmp_path / "code" / "deep" / "words.py").write_text("")
    (tmp_path / "code" / "data.csv").write_text("canary,in,data")
    (tmp_path / "tell.py").write_text("@callback\ndef tell(**kwargs):\n    'canary in a callback'\n")
    pipeline = load_pipeline(
        document(
            variables={"password": "{{ env_var('PASSWORD') }}"},
            transformers=[{"file": "code/clean.py"}],
            callbacks=[{"file": "tell.py"}],
        ),
        folder=tmp_path,
    )
    bundle = pack(pipeline)
    assert pack(pipeline) == bundle
    assert b"canary" not in bundle.archive
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = unpack(bundle)
    assert unpacked(bundle.name) == folder == unpack(bundle)
    assert (folder.stat().st_mode & 0o777, folder.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"manifest.json", "code/code/clean.py", "code/code/deep/words.py"}
    assert "canary" not in "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    there = open_bundle(folder)
    assert (there.pipeline, there.folder, there.callbacks) == ("p", tmp_path, ())
    assert there.variables == {"password": "canary-in-the-environment"}, "looked up on the worker"
