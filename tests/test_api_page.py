"""docs/api.md: its commands as they stand there, its metrics and its routes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.routing import Mount, Route

from syncblocks.sync.serve.web.metrics import METRICS
from syncblocks.sync.serve.web.order_body import RUN_KEYS
from tests.docs import examples, section, tables
from tests.sync.serve.serve_helpers import Place
from tests.sync.serve.web.web_helpers import Site, served

PAGE = "docs/api.md"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    place = Place(tmp_path)
    place.write()
    with served(place) as found:
        yield found


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_its_commands_are_answered(site: Site) -> None:
    token = site.store.access.make_token("ci", ["read", "run:crm*", "operate"])
    environment = {**os.environ, "URL": site.origin, "TOKEN": token}
    for example in examples("sh", page=PAGE):
        done = subprocess.run(
            ["bash", "-euc", example.text], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, (example.id, done.stdout, done.stderr)
    options = site.store.tick(1).options
    assert (options.streams, options.variables) == (("orders", "order_*"), {"day": "2024-01-31"})
    assert json.dumps(options.event) == '{"from": "nightly"}'


def test_its_tables_name_each_metric_each_key_and_each_route(site: Site) -> None:
    metrics = {f"syncblocks_{name}" for name in METRICS}
    assert set(re.findall(r"syncblocks_\w+", " ".join(tables(section(PAGE, "Metrics"))[0]))) == metrics
    assert set(re.findall(r"\w+", " ".join(tables(section(PAGE, "Start a run"))[0]))) == set(RUN_KEYS)
    (api,) = (route for route in site.routes if isinstance(route, Mount) and route.path == "/api")
    routes = {
        (method, "/api" + re.sub(r"\{[^}]*\}", "*", route.path))
        for route in api.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    told = {tuple(key.split()) for key in tables(section(PAGE, "Routes"))[0]}
    assert {(method, re.sub(r"\b(NAME|N|KEY)\b", "*", path)) for method, path in told} == routes
