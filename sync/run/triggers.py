"""The engine's part of `trigger_pipeline`: order a start of another pipeline, begin it, and report its state."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from syncblocks.callbacks.protocols import Delivery
from syncblocks.connectors.errors import ConnectorError

from ..config import Pipeline, load_pipeline
from ..config.yaml_document import read_document
from ..errors import ConfigError, SyncError, nearest_match
from ..pipeline_files import pipeline_files
from ..secrets import Redactor
from ..store import Store
from ..store.ticks import Tick, TickOptions
from .ticks import start_unserved

#: Maximum of pipelines in a chain of triggers.
MOST_CAUSES = 10


class Triggers:
    """Answers the questions of one pipeline's callbacks; thread-safe."""

    def __init__(self, pipeline: Pipeline, store: Store, redactor: Redactor) -> None:
        """Use a pipeline file, its run store, and a function that masks secrets in answers."""
        self._pipeline = pipeline
        self._store = store
        self._redactor = redactor

    def ask(self, delivery: Delivery) -> Callable[[str], str]:
        """Return the function that answers one delivery's questions; it numbers the orders from 1."""
        orders = 0

        def answer(question: str) -> str:
            nonlocal orders
            asked = json.loads(question)
            try:
                if "order" not in asked:
                    return json.dumps(self._status(asked["pipeline"], asked["tick"]))
                orders += 1
                return json.dumps(self._order(delivery, f"{delivery.key}:{orders}", asked))
            except (SyncError, ConnectorError, OSError) as error:
                return json.dumps({"error": self._redactor.redact(str(error))})

        return answer

    def _order(self, delivery: Delivery, key: str, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked["order"]
        causes = (*self._store.causes_of(int(delivery.kwargs["pipeline_run_id"])), self._pipeline.pipeline)
        if name in causes:
            chain = " -> ".join((*causes, name))
            raise SyncError(f"pipeline {name!r} is not started: its own callbacks led to this call: {chain}")
        if len(causes) >= MOST_CAUSES:
            raise SyncError(
                f"pipeline {name!r} is not started: {MOST_CAUSES} pipelines have started one another already: "
                + " -> ".join(causes)
            )
        self._refuse_secrets(name, asked)
        target = self._target(name)
        with Store.open(target.store_url) as store:
            tick = store.order_tick(
                name,
                key,
                trigger=str(asked["trigger"]),
                causes=causes,
                options=TickOptions(event=asked["event"], variables=asked["variables"]),
            )
            start_unserved(target, store, tick)
            return _status_of(store, tick)

    def _refuse_secrets(self, name: str, asked: dict[str, Any]) -> None:
        """Refuse values that contain a secret: the run store would store them."""
        for what in ("variables", "event"):
            text = json.dumps(asked[what], ensure_ascii=False)
            if self._redactor.redact(text) != text:
                raise SyncError(
                    f"the {what} for pipeline {name!r} hold a secret, which would be written to its run store: let "
                    f"its file read the secret, by secret() or env_var()"
                )

    def _status(self, name: str, number: int) -> dict[str, Any]:
        target = self._target(name)
        with Store.open(target.store_url) as store:
            tick = store.tick(number)
            start_unserved(target, store, tick)  # its server may have ended meanwhile
            if tick.state == "refused":
                raise SyncError(f"the run of pipeline {name!r} did not begin: {tick.why}")
            return _status_of(store, tick)

    def _target(self, name: str) -> Pipeline:
        """Return the pipeline of that name, from a file beside the caller's."""
        folder = self._pipeline.folder
        found: dict[str, list[Path]] = {}
        for path in pipeline_files(folder):
            found.setdefault(_name_of(path), []).append(path)
        if name not in found:
            near = nearest_match(name, found)
            raise ConfigError(
                f"no pipeline file in {folder} is named {name!r}",
                key="pipeline_uuid",
                allowed=tuple(found),
                nearest=near,
            )
        if len(found[name]) > 1:
            files = ", ".join(path.name for path in found[name])
            raise ConfigError(f"{len(found[name])} pipeline files are named {name!r}: {files}", key="pipeline_uuid")
        return load_pipeline(found[name][0])


def _name_of(path: Path) -> str:
    """Return a pipeline's name from its file; for a broken file, the file's name."""
    try:
        name = read_document(path).value.get("pipeline")
    except ConfigError:
        name = None
    return path.stem if name is None else str(name)


def _status_of(store: Store, tick: Tick) -> dict[str, Any]:
    if tick.run_id is None:
        return {"id": tick.id, "status": "initial", "why": tick.why}
    return {"id": tick.id, "status": store.run(tick.run_id).status, "why": None}
