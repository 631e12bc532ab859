"""Files on servers: sftp and ftp as destinations, object stores that refuse or do not answer, folders over http."""

from __future__ import annotations

import ftplib
import gzip
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError, FatalConnectorError, RetriableError
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.destination import CSVDestination
from syncblocks.connectors.files.storage import translated
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.sftp import CheckedSFTP
from syncblocks.connectors.stream import Bookmark, Checkpoint, FileRead
from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.run.recovery.unfinished_runs import drop_staging
from syncblocks.sync.store import Store
from tests.connectors.files.files_load import batch_of, load_of, run
from tests.connectors.files.files_pair import only, records_of
from tests.connectors.files.sftp_files import PASSWORD, USER, sftp_server
from tests.sync.store.store_helpers import attempt_plan, begin, stream_plan

#: Of the server from `pyftpdlib`.
pytestmark = pytest.mark.filterwarnings("ignore:.*async(ore|hat):DeprecationWarning")

FINAL = Checkpoint(is_final=True)


@contextmanager
def ftp_server(root: Path) -> Iterator[str]:
    """Serve a folder by a real ftp server."""
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.servers import FTPServer

    logging.getLogger("pyftpdlib").setLevel(logging.CRITICAL)
    authorizer = DummyAuthorizer()
    authorizer.add_user(USER, PASSWORD, str(root), perm="elradfmw")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    loop = IOLoop()
    server = FTPServer(("127.0.0.1", 0), handler, ioloop=loop)
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            server.serve_forever(timeout=0.02, blocking=False, handle_exit=False)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"ftp://{USER}:{PASSWORD}@127.0.0.1:{server.address[1]}"
    finally:
        is_over.set()
        thread.join()
        server.close_all()


@pytest.fixture(params=[ftp_server, sftp_server], ids=["ftp", "sftp"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Path]]:
    root = tmp_path / "served"
    root.mkdir()
    with request.param(root) as served:
        url = served if isinstance(served, str) else served.url
        if url != served:
            monkeypatch.setenv("HOME", str(tmp_path))
            served.make_known(tmp_path / ".ssh" / "known_hosts")
        yield url, root
        fsspec.get_filesystem_class(url.partition(":")[0]).clear_instance_cache()
        CheckedSFTP.clear_instance_cache()


def test_file_servers_keep_the_promises_of_a_folder(tmp_path: Path, server: tuple[str, Path]) -> None:
    url, root = server
    destination = CSVDestination({"path": f"{url}/out"}, tmp_path)
    destination.check()
    assert destination.describe(["orders"])["orders"].schema is None
    run(destination, load_of("append", "a"), batch_of((1, "a")), FINAL)
    run(destination, load_of("append", "b"), batch_of((2, "b")), FINAL)
    run(destination, load_of("merge", "c"), batch_of((2, "c"), (3, "c")), FINAL)
    assert (root / "out" / "orders.csv").read_text() == 'id,name\n1,"a"\n2,"c"\n3,"c"\n'
    run(destination, load_of("replace", "d"), batch_of((4, "d")), FINAL)
    source = CSVSource({"path": f"{url}/out"}, tmp_path)
    assert records_of(source, only(source)) == [{"id": 4, "name": "d"}]
    left = [path.name for path in root.rglob("*") if path.is_file()]
    assert sorted(left) == ["orders.csv", "orders.csv.json"]


def test_new_files_of_a_server_are_found(tmp_path: Path, server: tuple[str, Path]) -> None:
    url, root = server
    (root / "met").mkdir()
    (root / "met/1.csv").write_text("n\n1\n")
    source = CSVSource({"path": url, "streams": {"met": "met/**/*.csv"}, "file_columns": True}, tmp_path)

    def read(known: Sequence[FileRead], bookmark: Bookmark | None) -> tuple[list[Any], Checkpoint | None]:
        opened = source.open_tracked("met", known, bookmark) if bookmark else source.open_streams(["met"])[0]
        assert not opened.unreadable, opened.unreadable
        stream = replace(opened, read=replace(opened.read, method=ReplicationMethod.INCREMENTAL, tracks_files=True))
        events = [event for _, event in source.read([stream], {"met": bookmark})]
        records = [record for event in events if isinstance(event, pa.RecordBatch) for record in event.to_pylist()]
        return records, events[-1] if events else None  # type: ignore[return-value]

    (record,), checkpoint = read((), None)
    assert checkpoint is not None
    assert (record["n"], record["_file"]) == (1, "met/1.csv")
    assert abs(record["_file_modified"].timestamp() - (root / "met/1.csv").stat().st_mtime) < 2
    assert read(checkpoint.files, checkpoint.bookmark) == ([], None)
    (root / "met/2.csv").write_text("n\n2\n")
    assert [record["n"] for record in read(checkpoint.files, checkpoint.bookmark)[0]] == [2]


def test_recovery_on_a_file_server_moves_what_was_committed(tmp_path: Path, server: tuple[str, Path]) -> None:
    url, root = server
    destination = CSVDestination({"path": f"{url}/out"}, tmp_path)
    run(destination, load_of("append", "a"), batch_of((1, "a")), FINAL)
    committed = (root / "out" / "_syncblocks_ledger" / "orders.csv.json").read_text()
    staging = root / "out" / "_syncblocks_ledger" / "staging" / "a"
    staging.mkdir(parents=True)
    (name,) = [path.relative_to(root / "out") for path in (root / "out" / "orders").iterdir()]
    (root / "out" / name).rename(staging / "x.csv")
    moved = '"moved_from": "_syncblocks_ledger/staging/a/x.csv"'
    before = next(line.strip().rstrip(",") for line in committed.splitlines() if '"moved_from"' in line)
    (root / "out" / "_syncblocks_ledger" / "orders.csv.json").write_text(committed.replace(before, moved))
    (staging / "never committed.csv").touch()
    destination.drop_staging(["a"])
    assert (root / "out" / name).read_text() == 'id,name\n1,"a"\n'
    assert not staging.exists()


def test_a_destination_that_cannot_move_files_is_refused_at_plan(tmp_path: Path) -> None:
    with pytest.raises(ConnectorConfigError, match="must move and delete files") as caught:
        CSVDestination({"path": "http://127.0.0.1:1/out"}, tmp_path).describe(["orders"])
    assert caught.value.key == "path"


def test_recovery_goes_on_where_nothing_can_be_moved_any_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    planned = replace(stream_plan("orders"), config={"tries": 1})
    with Store.open(f"sqlite:///{tmp_path}/store.db") as store:
        run = begin(store, attempt_plan([planned]))
    drop_staging(CSVDestination({"path": "http://127.0.0.1:1/out"}, tmp_path), run, [planned])
    assert "the staging tables of the dead process stay" in caplog.text


@pytest.mark.parametrize(
    ("path", "is_warned"),
    [
        ("ftp://me@files.example/out", True),
        ("http://files.example/a.csv", True),
        ("http://127.0.0.1:1/a.csv", False),
        ("https://files.example/a.csv", False),
        ("sftp://files.example/out", False),
        ("s3://bucket/out", False),
        ("out", False),
    ],
)
def test_the_plan_warns_of_a_server_that_is_not_verified(tmp_path: Path, path: str, is_warned: bool) -> None:
    for part in (CSVSource, CSVDestination):
        assert ("files.example is not verified" in part({"path": path}, tmp_path).unverified_server()) == is_warned


# Errors

DEAD_STORE = {
    "client_kwargs": {"endpoint_url": "http://127.0.0.1:1"},
    "config_kwargs": {"retries": {"max_attempts": 0}},
}


@pytest.mark.full
def test_an_object_store_that_does_not_answer_is_worth_another_try(tmp_path: Path) -> None:
    options = {**DEAD_STORE, "key": "k", "secret": PASSWORD}
    for part in (CSVSource, CSVDestination):
        with pytest.raises(RetriableError, match=r"s3://bucket/.*EndpointConnectionError") as caught:
            part({"path": "s3://bucket/out", "storage_options": options}, tmp_path).check()
        assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nope": 1}, "s3:// has no such option 'nope'$"),
        ({"anonn": True}, r"has no such option 'anonn'; did you mean 'anon'\?"),
        (
            {"client_kwargs": {"endpointurl": "x"}},
            r"no such option 'endpointurl'; did you mean 'endpoint_url'\?",
        ),
    ],
)
def test_an_option_that_the_driver_does_not_take_is_a_mistake_of_the_settings(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    for part in (CSVSource, CSVDestination):
        with pytest.raises(ConnectorConfigError, match=message) as caught:
            part({"path": "s3://bucket/out", "storage_options": {"key": "k", **options}}, tmp_path).check()
        assert caught.value.key == "storage_options"


@pytest.mark.full
def test_missing_credentials_of_an_object_store_are_a_mistake_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConnectorConfigError, match=r"NoCredentialsError.*storage_options"):
        CSVSource({"path": "s3://bucket/out.csv", "storage_options": DEAD_STORE}, tmp_path).check()


def _throttled() -> Exception:
    from botocore.exceptions import ClientError

    return ClientError({"Error": {"Code": "SlowDown", "Message": "Reduce your request rate"}}, "PutObject")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (_throttled, RetriableError),
        (partial(ftplib.error_temp, "421 too many connections"), RetriableError),
        (partial(ftplib.error_perm, "530 login incorrect"), ConnectorConfigError),
        (partial(ftplib.error_perm, "550 no space"), FatalConnectorError),
        (EOFError, RetriableError),
    ],
)
def test_errors_of_servers_are_sorted_by_whether_another_try_can_mend_them(
    made: Any, expected: type[ConnectorError]
) -> None:
    with pytest.raises(expected, match="bucket/x"), translated("bucket/x"):
        raise made()


def test_a_bug_of_ours_stays_one() -> None:
    with pytest.raises(KeyError), translated("bucket/x"):
        raise KeyError("x")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def web_of(folder: Path, handler: type[Quiet] = Quiet) -> Iterator[str]:
    """Serve a folder, and give its URL."""
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=web.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{web.server_port}"
    finally:
        web.shutdown()
        thread.join()
        web.server_close()


def test_a_folder_over_http_is_refused_and_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("n\n1\n")
    with web_of(tmp_path) as url:
        for folder in (f"{url}/data", f"{url}/data/"):
            with pytest.raises(ConnectorConfigError, match="http cannot list a folder"):
                CSVSource({"path": folder}, tmp_path).discover()
        assert records_of(CSVSource({"path": f"{url}/data/a.csv"}, tmp_path)) == [{"n": 1}]


SIGNED = "X-Amz-Credential=AK/20260101/eu/s3/aws4_request&list=*&X-Amz-Signature=SECRET.x"


def test_a_file_over_http_is_called_by_its_name_and_no_query_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"n\n1\nx\n"))
    with web_of(tmp_path) as url:
        source = CSVSource({"path": f"{url}/a.csv?{SIGNED}", "file_columns": True}, tmp_path)
        assert [stream.name for stream in source.discover()] == ["a"]
        assert [(record["n"], record["_file"]) for record in records_of(source)] == [(1, "a.csv")]
        assert source.identity() == CSVSource({"path": f"{url}/a.csv"}, tmp_path).identity()
        packed = CSVSource({"path": f"{url}/b.csv.gz?{SIGNED}", "types": {"n": "int64"}}, tmp_path)
        assert [stream.name for stream in packed.discover()] == ["b"]
        with pytest.raises(FatalConnectorError, match=r"/b\.csv\.gz:3: column 'n'"):
            records_of(packed)
        with pytest.raises(ConnectorConfigError, match=r"/gone\.csv: no such file$"):
            CSVSource({"path": f"{url}/gone.csv?{SIGNED}"}, tmp_path).discover()


class Leading(Quiet):
    """Leads to the URL that its query names; remembers what was sent."""

    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        _, _, to = self.path.partition("?to=")
        if to:
            self.send_response(302)
            self.send_header("Location", to)
            self.end_headers()
        else:
            super().do_GET()

    do_HEAD = do_GET


OPTIONS = {
    "headers": {"X-Api-Key": PASSWORD, "Authorization": f"Bearer {PASSWORD}", "Cookie": f"a={PASSWORD}"},
    "cookies": {"b": PASSWORD},
    "client_kwargs": {"headers": {"X-Token": PASSWORD}, "cookies": {"c": PASSWORD}},
}


@pytest.mark.parametrize("credentials", ["", f"{USER}:{PASSWORD}@"])
@pytest.mark.parametrize("options", [OPTIONS, {}])
def test_what_settings_send_along_follows_no_redirect_to_another_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, credentials: str, options: dict[str, Any]
) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n")
    own, other = (type("Handler", (Leading,), {"seen": []}) for _ in range(2))
    options = {**options, "headers": {} if credentials else options.get("headers", {})}
    with web_of(tmp_path, own) as url, web_of(tmp_path, other) as elsewhere:
        named = url.replace("://", f"://{credentials}")
        same = CSVSource({"path": f"{named}/a.csv?to=/a.csv", "storage_options": options}, tmp_path)
        assert records_of(same) == [{"n": 1}]
        sent = "".join(map(str, own.seen))
        assert all("authorization" in each for each in own.seen) == bool(credentials or options["headers"])
        assert not caplog.records
        led = CSVSource({"path": f"{named}/a.csv?to={elsewhere}/a.csv", "storage_options": options}, tmp_path)
        assert records_of(led) == [{"n": 1}]
    assert ("x-token" in sent) == ("client_kwargs" in options)
    assert PASSWORD not in str(other.seen)
    assert not {"x-api-key", "x-token", "authorization", "cookie"}.intersection(*map(set, other.seen))
    (said,) = caplog.messages
    assert said.startswith(
        f"{url} redirects to {elsewhere}: the request there has no headers or cookies of `storage_options`"
    )
