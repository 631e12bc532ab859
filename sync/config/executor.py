"""The executor of a pipeline: where its streams run."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from .base import Defaulting, wrong
from .value_types import AtOnce, Name

#: In place of an address: workers that the run starts on this machine, and ends.
LOCAL = "local"
THREADS = "threads"
_SCHEMES = ("tcp", "tls", "ws", "wss")
_FORMS = "local, tcp://HOST:PORT or tls://HOST:PORT"


class SecuritySettings(Defaulting):
    """Files of TLS, each PEM."""

    ca: Name = Field(description="Certificates of the authorities that signed the cluster's certificates.")
    cert: Name = Field(description="Certificate of this client.")
    key: Name = Field(description="Its private key.")


class ExecutorSettings(Defaulting):
    """Where streams run; without `dask` in threads of the run's own process."""

    dask: Name | None = Field(
        default=None,
        description="Address of a Dask scheduler, tcp://HOST:PORT or tls://HOST:PORT; local: workers here.",
    )
    workers: AtOnce | None = Field(default=None, description="For `dask: local`: number of workers; default 4.")
    security: SecuritySettings | None = Field(default=None, description="For `tls://`: ca, cert and key.")
    spool: Name | None = Field(
        default=None,
        description="Folder with one path on all machines, or a URL such as s3://bucket/spool; needed if callbacks "
        "want data.",
    )

    def __str__(self) -> str:
        """Return it in a word or two."""
        return THREADS if self.dask is None else f"dask: {self.dask}"

    @property
    def is_elsewhere(self) -> bool:
        """Whether other processes run the streams."""
        return self.dask is not None

    @property
    def is_local(self) -> bool:
        """Whether the run starts its own workers, on this machine."""
        return self.dask == LOCAL


def as_executor(value: Any) -> Any:
    """Return the settings of what the file says: `threads`, or a mapping with `dask`."""
    if isinstance(value, ExecutorSettings):
        return value
    if isinstance(value, str):
        if value == THREADS:
            return {}
        raise wrong(f"must be threads, or a mapping with dask: {_FORMS}")
    if isinstance(value, dict) and isinstance(address := value.get("dask"), str):
        scheme, separator, host = address.partition("://")
        if address != LOCAL and not (scheme in _SCHEMES and separator and host):
            raise wrong(f"dask must be {_FORMS}")
        if address != LOCAL and value.get("workers") is not None:
            raise wrong("`workers` needs `dask: local`: a cluster has its own workers")
        if value.get("security") is not None and scheme not in ("tls", "wss"):
            raise wrong("`security` needs an address that begins with tls://")
    elif isinstance(value, dict):
        raise wrong(f"needs dask: {_FORMS}")
    return value


Executor = Annotated[ExecutorSettings, BeforeValidator(as_executor)]
