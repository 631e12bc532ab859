"""Secrets of AWS Secrets Manager, Azure Key Vault, Google Secret Manager and HashiCorp Vault, through their SDKs.

Each SDK is imported by the first secret that is looked up there. They find their credentials as they always do.
"""

from __future__ import annotations

import base64
import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

#: Seconds for a connection, and for an answer.
CONNECT_S, ANSWER_S = 5, 10

#: Seconds for which a value is not asked for again: a file is read several times by one command.
KEPT_S = 300

#: Function, name, key and environment -> value, and when it was read.
_kept: dict[tuple[Any, ...], tuple[str, float]] = {}


class _NotFound(Exception):
    """The store answers that it has no such secret, or that it has none for these credentials."""


def stored_secret(function: str, name: str, key: str | None, environ: Mapping[str, str]) -> str:
    """Return a secret of a store.

    Args:
        function: of `STORES`.
        name: the secret's name; in Vault its path.
        key: in Vault, which of the secret's values.
        environ: where the store's address stands.

    Raises:
        LookupError: there is no such secret, the store cannot be asked, or its package is missing; shows no value.
    """
    at = (function, name, key, *(environ.get(variable) for variable in _ADDRESSES))
    value, read_at = _kept.get(at, ("", -KEPT_S - 1.0))
    if time.monotonic() - read_at > KEPT_S:
        value = _asked(function, name, key, environ)
        _kept[at] = (value, time.monotonic())
    return value


def _asked(function: str, name: str, key: str | None, environ: Mapping[str, str]) -> str:
    store, packages, ask = STORES[function]
    try:
        modules = [importlib.import_module(package) for package in packages]
    except ImportError as error:
        missing = error.name or packages[0]
        raise LookupError(f"{function}() needs the package {missing}: pip install 'syncblocks[secrets]'") from None
    shown = f"secret {name!r}" if key is None else f"{key!r} of secret {name!r}"
    try:
        return ask(modules, name, key, environ)
    except _NotFound:
        raise LookupError(f"{store} has no {shown}, or its reader may not see it") from None
    except LookupError:
        raise
    except Exception as error:
        # Without the cause, whose text may hold a token.
        raise LookupError(
            f"{store} did not give {shown} ({type(error).__name__}): check address, credentials and network"
        ) from None


def _aws(modules: list[Any], name: str, key: str | None, environ: Mapping[str, str]) -> str:
    boto3, config, exceptions = modules
    limits = config.Config(connect_timeout=CONNECT_S, read_timeout=ANSWER_S, retries={"max_attempts": 2})
    regions = (environ.get(variable) for variable in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_REGION_NAME"))
    client = boto3.client("secretsmanager", region_name=next(filter(None, regions), None), config=limits)
    try:
        found = client.get_secret_value(SecretId=name)
    except exceptions.ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            raise _NotFound from None
        raise
    text = found.get("SecretString")
    return str(text if text is not None else found["SecretBinary"].decode("utf-8"))


def _azure(modules: list[Any], name: str, key: str | None, environ: Mapping[str, str]) -> str:
    identity, secrets, exceptions = modules
    url = _variable("azure_secret_var", "AZURE_KEY_VAULT_URL", environ)
    credential = identity.DefaultAzureCredential()
    limits = {"connection_timeout": CONNECT_S, "read_timeout": ANSWER_S, "retry_total": 2}
    with credential, secrets.SecretClient(vault_url=url, credential=credential, **limits) as client:
        try:
            value = client.get_secret(name).value
        except exceptions.ResourceNotFoundError:
            raise _NotFound from None
    if value is None:
        raise _NotFound
    return str(value)


def _google(modules: list[Any], name: str, key: str | None, environ: Mapping[str, str]) -> str:
    auth, requests = modules
    credentials, project = auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    project = environ.get("GCP_PROJECT_ID") or project
    if not project:
        raise LookupError("gcp_secret_var() needs the environment variable GCP_PROJECT_ID")
    place = environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER") or "https://secretmanager.googleapis.com/"
    path = f"v1/projects/{quote(project, safe='')}/secrets/{quote(name, safe='')}/versions/latest:access"
    with requests.AuthorizedSession(credentials) as session:
        answer = session.get(f"{place.rstrip('/')}/{path}", timeout=(CONNECT_S, ANSWER_S), allow_redirects=False)
        if answer.status_code in (403, 404):
            raise _NotFound
        answer.raise_for_status()
        return base64.b64decode(answer.json()["payload"]["data"]).decode("utf-8")


def _vault(modules: list[Any], name: str, key: str | None, environ: Mapping[str, str]) -> str:
    hvac, exceptions = modules
    url = environ.get("VAULT_URL") or environ.get("VAULT_ADDR") or "http://127.0.0.1:8200"
    token = _variable("vault_secret_var", "VAULT_TOKEN", environ)
    mount = environ.get("VAULT_MOUNT_POINT") or "secret"
    client = hvac.Client(url=url, token=token, timeout=ANSWER_S, namespace=environ.get("VAULT_NAMESPACE"))
    try:
        answer = client.secrets.kv.v2.read_secret_version(path=name, mount_point=mount, raise_on_deleted_version=True)
    except (exceptions.InvalidPath, exceptions.Forbidden):
        raise _NotFound from None
    finally:
        client.adapter.close()
    values = answer["data"]["data"]
    if key not in values:
        raise _NotFound
    value = values[key]
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise LookupError(f"vault_secret_var(): {key!r} of secret {name!r} is neither text nor number")
    return str(value)


def _variable(function: str, name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name)
    if not value:
        raise LookupError(f"{function}() needs the environment variable {name}")
    return value


#: Where a store is; a value that was read elsewhere is no value of it.
_ADDRESSES = (
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AZURE_KEY_VAULT_URL",
    "GCP_PROJECT_ID",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER",
    "VAULT_URL",
    "VAULT_ADDR",
    "VAULT_MOUNT_POINT",
    "VAULT_NAMESPACE",
)

#: Function of templates, named as in Mage -> what the store is called, modules of its SDK, how it is asked.
STORES: Mapping[str, tuple[str, tuple[str, ...], Callable[..., str]]] = {
    "aws_secret_var": ("AWS Secrets Manager", ("boto3", "botocore.config", "botocore.exceptions"), _aws),
    "azure_secret_var": (
        "Azure Key Vault",
        ("azure.identity", "azure.keyvault.secrets", "azure.core.exceptions"),
        _azure,
    ),
    "gcp_secret_var": ("Google Secret Manager", ("google.auth", "google.auth.transport.requests"), _google),
    "vault_secret_var": ("HashiCorp Vault", ("hvac", "hvac.exceptions"), _vault),
}
