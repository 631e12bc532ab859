"""Secrets of AWS, Azure, Google and Vault: read through their own packages from servers that speak their HTTP.

AWS is moto. The others are a server of this test that gives what the documentation of each says.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from syncblocks import load_pipeline
from syncblocks.sync import secret_stores
from syncblocks.sync.config.templates import TemplateError, TemplateValues, render
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.secrets import Redactor

VALUE = "s3cret-of-the-store"
#: The token that each server demands.
TOKEN = "t0ken-of-the-reader"


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_stores, "_kept", {})


@contextmanager
def served(answers: dict[str, Any], certificate: Path | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve JSON by path; yields the address, and which paths were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            given = {self.headers.get("Authorization"), self.headers.get("X-Vault-Token")}
            if path.startswith("/vault") and f"Bearer {TOKEN}" not in given:
                # As Key Vault: who may give a token for which resource.
                self.send_response(401)
                resource = "https://" + self.headers["Host"].removeprefix("127.")
                self.send_header("WWW-Authenticate", f'Bearer authorization="{resource}/t", resource="{resource}"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            is_open = path in ("/token", "/identity")
            code = 200 if path in answers and (is_open or {TOKEN, f"Bearer {TOKEN}"} & given) else 404
            self.say(code, answers.get(path, {"errors": []}))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.say(200, answers[self.path])

        def say(self, code: int, answer: Any) -> None:
            body = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def filled(text: str, **environ: str) -> str:
    found = render(text, TemplateValues(folder=Path(), environ=environ))
    assert found.secrets == {found.value}
    return str(found.value)


def refusal(text: str, **environ: str) -> str:
    with pytest.raises(TemplateError) as caught:
        render(text, TemplateValues(folder=Path(), environ=environ))
    assert TOKEN not in str(caught.value)
    return str(caught.value)


@pytest.mark.full
def test_aws_secrets_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        boto3.client("secretsmanager", region_name="eu-west-1").create_secret(Name="shop/login", SecretString=VALUE)
        assert filled("{{ aws_secret_var('shop/login') }}", AWS_REGION_NAME="eu-west-1") == VALUE
        assert "has no secret 'shop/logon'" in refusal("{{ aws_secret_var('shop/logon') }}", AWS_REGION="eu-west-1")


def test_hashicorp_vault() -> None:
    answers = {"/v1/kv/data/mage/api": {"data": {"data": {"token": VALUE, "port": 8}, "metadata": {}}}}
    with served(answers) as (url, asked):
        environ = {"VAULT_URL": url, "VAULT_TOKEN": TOKEN, "VAULT_MOUNT_POINT": "kv"}
        assert filled("{{ vault_secret_var('mage/api', 'token') }}", **environ) == VALUE
        assert filled("{{ vault_secret_var('mage/api', 'token') }}", **environ) == VALUE
        assert len(asked) == 1
        assert filled("{{ vault_secret_var('mage/api', 'port') }}", **environ) == "8"
        assert "'key' of secret 'mage/api'" in refusal("{{ vault_secret_var('mage/api', 'key') }}", **environ)
        assert "has no 'key' of secret 'mage/x'" in refusal("{{ vault_secret_var('mage/x', 'key') }}", **environ)
    assert "VAULT_TOKEN" in refusal("{{ vault_secret_var('a', 'b') }}")
    assert "check address" in refusal("{{ vault_secret_var('mage/y', 'key') }}", **environ)


def private_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: Any) -> str:
    from cryptography.hazmat.primitives import serialization as s

    return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode()


def test_google_secret_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = base64.b64encode(VALUE.encode()).decode()
    answers = {
        "/token": {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"},
        "/v1/projects/shop/secrets/login/versions/latest:access": {"payload": {"data": data}},
    }
    with served(answers) as (url, _):
        account = {"type": "service_account", "client_email": "me@shop", "token_uri": f"{url}/token"}
        (tmp_path / "account.json").write_text(json.dumps(account | {"private_key": pem(private_key())}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        environ = {"GCP_PROJECT_ID": "shop", "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": f"{url}/"}
        assert filled("{{ gcp_secret_var('login') }}", **environ) == VALUE
        assert "has no secret 'logon'" in refusal("{{ gcp_secret_var('logon') }}", **environ)
        assert "GCP_PROJECT_ID" in refusal("{{ gcp_secret_var('login') }}")


def self_signed(path: Path) -> Path:
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key, name, now = private_key(), x509.Name([]), datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    made = builder.add_extension(address, critical=True).sign(key, hashes.SHA256())
    path.write_text(pem(key) + made.public_bytes(serialization.Encoding.PEM).decode())
    return path


def test_azure_key_vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(tmp_path / "server.pem")
    token = {"access_token": TOKEN, "expires_on": "4102444800", "resource": "r", "token_type": "Bearer"}
    secret = {"value": VALUE, "id": "https://127.0.0.1/secrets/login/1", "attributes": {"enabled": True}}
    with (
        served({"/identity": token}) as (identity, _),
        served({"/vault/secrets/login/": secret}, certificate) as (url, _),
    ):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{identity}/identity")
        monkeypatch.setenv("IDENTITY_HEADER", "header")
        environ = {"AZURE_KEY_VAULT_URL": f"{url}/vault"}
        assert filled("{{ azure_secret_var('login') }}", **environ) == VALUE
        assert "has no secret 'logon'" in refusal("{{ azure_secret_var('logon') }}", **environ)
        assert "AZURE_KEY_VAULT_URL" in refusal("{{ azure_secret_var('login') }}")


@pytest.mark.parametrize(
    "text",
    [
        "{{ vault_secret_var('path') }}",
        "{{ vault_secret_var('path', ds) }}",
        "{{ aws_secret_var('a', 'b') }}",
        "{{ azure_secret_var(ds) }}",
        "{{ gcp_secret_var() }}",
    ],
)
def test_a_wrong_call_says_how_it_is_written(text: str) -> None:
    assert "secret_var('" in refusal(text)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hvac", None)
    assert "pip install 'syncblocks[secrets]'" in refusal("{{ vault_secret_var('a', 'b') }}", VAULT_TOKEN="t")


def test_a_value_is_masked_and_stored_as_its_reference(tmp_path: Path) -> None:
    template = "{{ vault_secret_var('mage/api', 'token') }}"
    document: dict[str, Any] = {
        "pipeline": "p",
        "variables": {"key": template},
        "source": {"connector": "csv", "config": {"path": "."}},
        "destination": {"connector": "sqlite", "config": {"path": "out.db"}},
        "streams": [{"stream": "*"}],
    }
    with served({"/v1/secret/data/mage/api": {"data": {"data": {"token": VALUE}}}}) as (url, _):
        environ = {"VAULT_ADDR": url, "VAULT_TOKEN": TOKEN}
        pipeline = load_pipeline(document, folder=tmp_path, environ=environ)
        assert pipeline.variables["key"] == VALUE
        assert Redactor(pipeline.secret_values).redact(f"is {VALUE}") == "is ***"
        assert VALUE not in json.dumps(dict(pipeline.variable_references))
        document["concurrency"] = template
        with pytest.raises(ConfigError) as caught:
            load_pipeline(document, folder=tmp_path, environ=environ)
        assert VALUE not in str(caught.value)
