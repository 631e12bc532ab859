"""Servers out of wheels: an object store (moto, in an environment of its own) and sftp (paramiko)."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from syncblocks.connectors.programs.environments import installed

from .stage import Failed, Stage

#: The store and its version; botocore of its own, which need not go with that of s3fs.
MOTO = "moto[s3,server]==5.2.5"

#: What every client of the store says.
KEYS: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    # A proxy of the network is not asked for servers of this machine.
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}


@dataclass(frozen=True, slots=True)
class Store:
    """An object store with a bucket called `bucket`."""

    url: str

    @property
    def options(self) -> dict[str, Any]:
        """`storage_options` of a pipeline file."""
        return {"key": "testing", "secret": "testing", "client_kwargs": {"endpoint_url": self.url}}

    def _files(self) -> Any:
        import s3fs

        return s3fs.S3FileSystem(**self.options, skip_instance_cache=True, use_listings_cache=False)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._files().pipe_file(f"{bucket}/{key}", data)

    def get(self, bucket: str, key: str) -> bytes:
        return bytes(self._files().cat_file(f"{bucket}/{key}"))

    def keys(self, bucket: str, under: str = "") -> list[str]:
        found = self._files().find(f"{bucket}/{under}".rstrip("/"))
        return sorted(each.removeprefix(f"{bucket}/") for each in found)


@contextmanager
def s3_store(stage: Stage) -> Iterator[Store]:
    """Run the store for one case."""
    program = installed(MOTO, program="moto_server", python="", folder=stage.folder, timeout_s=900)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [str(program), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **KEYS},
    )
    store = Store(f"http://127.0.0.1:{port}")
    try:
        _wait_for(store.url)
        store._files().mkdir("bucket")
        yield store
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            urlopen(f"{url}/moto-api/data.json", timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise Failed(f"the object store does not answer: {error}") from error
            time.sleep(0.1)


@contextmanager
def sftp_folder(root: Path) -> Iterator[dict[str, Any]]:
    """Serve a folder over sftp; yields host, port, username and password."""
    from tests.connectors.files.sftp_files import sftp_server

    with sftp_server(root) as served:
        place = urlsplit(served.url)
        yield {
            "host": place.hostname,
            "port": place.port,
            "username": place.username,
            "password": place.password,
        }
