"""Keys of SFTP servers: an unknown, changed or revoked one is refused before any login is tried."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.destination import CSVDestination
from syncblocks.connectors.sftp import CheckedSFTP
from syncblocks.connectors.singer.batches import BadBatch, BatchFiles
from syncblocks.sync.cli import invoke
from tests.connectors.files.files_pair import records_of
from tests.connectors.files.sftp_files import PASSWORD, Served, sftp_server

#: Another server's key.
OTHER = paramiko.ECDSAKey.generate().get_base64()
ECDSA = "ecdsa-sha2-nistp256"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a file; paramiko prefers the first of the server's keys."""
    root = tmp_path_factory.mktemp("served")
    (root / "a.csv").write_text("n\n1\n")
    (root / "a.jsonl").write_text('{"n": 1}\n')
    with sftp_server(root, paramiko.ECDSAKey, paramiko.RSAKey) as served:
        yield served


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Served) -> Iterator[Path]:
    """Let each test begin with a home of its own, and no connection."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    server.asked.clear()
    yield tmp_path / "home"
    CheckedSFTP.clear_instance_cache()


def read(server: Served, folder: Path, **options: Any) -> list[dict[str, Any]]:
    return records_of(CSVSource({"path": f"{server.url}/a.csv", "storage_options": options}, folder))


def refused(server: Served, folder: Path, **options: Any) -> str:
    """Return why the server is refused; nobody has tried to log in."""
    with pytest.raises(ConnectorConfigError) as caught:
        read(server, folder, **options)
    assert caught.value.key == "storage_options"
    assert server.asked == []
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def hashed(name: str) -> str:
    return paramiko.HostKeys.hash_host(name)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(lambda name, ecdsa, rsa: f"{name} {ecdsa}", id="name and port"),
        pytest.param(lambda name, ecdsa, rsa: f"{hashed(name)} {ecdsa} a comment", id="hashed"),
        pytest.param(lambda name, ecdsa, rsa: f"{name} {rsa}", id="a kind that is not preferred"),
        pytest.param(lambda name, ecdsa, rsa: f"host.example,{name}\t{ecdsa}", id="of several names"),
        pytest.param(lambda name, ecdsa, rsa: f"[127.0.0.*]:* {ecdsa}", id="a pattern"),
        pytest.param(lambda name, ecdsa, rsa: f"{name} {ECDSA} {OTHER}\r\n{name} {ecdsa}", id="the second of a kind"),
        pytest.param(
            lambda name, ecdsa, rsa: (
                f"# {name}\n\n@odd\nbad\n{name} {ECDSA} A\n|1|A|A {ecdsa}\n\xff {rsa}\n{name} {rsa}"
            ),
            id="among odd lines",
        ),
        pytest.param(lambda name, ecdsa, rsa: f"@revoked {name} {ECDSA} {OTHER}\n{name} {ecdsa}", id="another revoked"),
    ],
)
def test_a_known_server_is_read(home: Path, server: Served, lines: Callable[..., str]) -> None:
    (home / ".ssh" / "known_hosts").write_text(lines(server.name, *server.host_keys), encoding="latin-1")
    assert read(server, home) == [{"n": 1}]
    assert "password" in server.asked


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(lambda name, ecdsa: "", id="empty"),
        pytest.param(lambda name, ecdsa: f"127.0.0.1 {ecdsa}", id="another port"),
        pytest.param(lambda name, ecdsa: f"{hashed('host.example')} {ecdsa}", id="hash of another"),
        pytest.param(lambda name, ecdsa: f"!{name},[127.0.0.*]:* {ecdsa}", id="excepted from a pattern"),
        pytest.param(lambda name, ecdsa: f"@cert-authority {name} {ecdsa}", id="an authority"),
    ],
)
def test_an_unknown_server_is_refused_before_a_login_and_the_error_says_how_to_know_it(
    home: Path, server: Served, lines: Callable[..., str]
) -> None:
    known_hosts = home / ".ssh" / "known_hosts"
    known_hosts.write_text(lines(server.name, server.host_keys[0]) + "\n")
    message = refused(server, home)
    key = paramiko.PKey.from_type_string(ECDSA, b64decode(server.host_keys[0].split()[1]))
    assert f"shows {ECDSA} {key.fingerprint}" in message
    assert f"is not in {known_hosts} or /etc/ssh/ssh_known_hosts" in message
    (line,) = re.findall("`(.* .*)` to ", message)
    with known_hosts.open("a") as file:
        file.write(f"{line}\n")
    assert read(server, home) == [{"n": 1}]


def test_another_key_than_the_known_one_is_refused_before_a_login(home: Path, server: Served) -> None:
    known_hosts = home / ".ssh" / "known_hosts"
    known_hosts.write_text(f"# mine\n{server.name} {ECDSA} {OTHER}\n")
    message = refused(server, home)
    assert f"{known_hosts}:2" in message
    assert "not the known key" in message
    assert "ask its administrator" in message
    assert "not the known key" in refused(server, home, host_key=f"{ECDSA} {OTHER}")


def test_a_revoked_key_is_refused_where_it_is_known_as_well(home: Path, server: Served) -> None:
    lines = f"{server.name} {server.host_keys[0]}\n@revoked * {server.host_keys[0]}\n"
    (home / ".ssh" / "known_hosts").write_text(lines)
    assert "is revoked" in refused(server, home)


@pytest.mark.parametrize("kind", [0, 1])
def test_the_settings_name_a_key_or_a_file(tmp_path: Path, server: Served, kind: int) -> None:
    assert read(server, tmp_path, host_key=f"{server.host_keys[kind]} root@host") == [{"n": 1}]
    (tmp_path / "hosts").write_text(f"{server.name} {server.host_keys[kind]}\n")
    assert read(server, tmp_path, known_hosts="hosts") == [{"n": 1}]
    out = {"path": f"{server.url}/out".replace("sftp:", "ssh:"), "storage_options": {"known_hosts": "hosts"}}
    CSVDestination(out, tmp_path).check()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host_key": "SHA256:abc"}, "host_key must be the server's public key"),
        ({"host_key": f"ssh-rsa {OTHER}"}, "host_key must be the server's public key"),
        ({"host_key": 3}, "host_key must be the server's public key"),
        ({"known_hosts": ""}, "known_hosts must be the path"),
        ({"known_hosts": "nowhere"}, "nowhere: No such file"),
        ({"known_hosts": "nowhere", "host_key": f"{ECDSA} {OTHER}"}, "set one of them"),
    ],
)
def test_settings_that_name_no_key_are_refused(
    tmp_path: Path, server: Served, options: dict[str, Any], words: str
) -> None:
    assert words in refused(server, tmp_path, **options)


def test_plan_refuses_a_server_whose_key_is_unknown(
    tmp_path: Path, server: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    document: dict[str, Any] = {
        "source": {"connector": "csv", "config": {"path": f"sftp://someone@127.0.0.1:{server.port}/a.csv"}},
        "destination": {"connector": "jsonl", "config": {"path": "out"}},
        "streams": [{"stream": "a"}],
    }
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    assert invoke(["plan", str(tmp_path / "p.yaml")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"the key of {server.name} is not in" in said
    assert server.asked == []


def test_files_of_a_batch_come_from_a_known_server(home: Path, server: Served) -> None:
    files = BatchFiles([server.url], home)
    with pytest.raises(BadBatch, match="so no login was sent"):
        list(files.read_lines(f"{server.url}/a.jsonl", {}))
    assert server.asked == []
    server.make_known(home / ".ssh" / "known_hosts")
    assert [numbers for _, numbers in files.read_lines(f"{server.url}/a.jsonl", {})] == [[1]]
