"""An API over the files of the shop, to try a manifest on: `python sample_configs/api/server.py`, until Ctrl-C.

GET /orders?page=1&updated_since=2026-03-01T00:00:00Z answers {"data": [...]}, at most 200 records.
"""

from __future__ import annotations

import csv
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

SHOP = Path(__file__).parent.parent / "shop"
NUMBERS = {"id": int, "customer_id": int, "total": float}
PAGE = 200


def records(stream: str, updated_since: str) -> list[dict[str, Any]]:
    """Return the records of a file that are not older than a time."""
    with (SHOP / f"{stream}.csv").open(encoding="utf-8") as file:
        found = [{name: NUMBERS.get(name, str)(text) for name, text in row.items()} for row in csv.DictReader(file)]
    return [record for record in found if record.get("updated_at", updated_since) >= updated_since]


class Shop(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[-1] for name, values in parse_qs(url.query).items()}
        first = (int(asked.get("page", 1)) - 1) * PAGE
        try:
            status, found = 200, records(url.path.strip("/"), asked.get("updated_since", ""))
        except OSError:
            status, found = 404, []
        answer = json.dumps({"data": found[first : first + PAGE]}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 8088), Shop) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
