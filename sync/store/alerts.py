"""Alerts: what was found to be wrong, told once when it begins and once when it is over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from .connection import Row, StoreConnection, value_of
from .freshness_facts import Subject
from .statements import insert, update
from .table_names import ALERT
from .transactions import Transactions

#: What begins again so soon after its end is the same alert: only then is it told that it is over.
OVER_AFTER_S = 600
#: How long a process that is not visible from here may take to tell what it has claimed.
_TELLING_S = 300

_OPEN = f"SELECT * FROM {ALERT} WHERE is_closed = FALSE ORDER BY begun_at, pipeline, stream, kind FOR UPDATE"
_KEY = "pipeline = :pipeline AND stream = :stream AND kind = :kind AND occurrence = :occurrence"
_BEFORE = f"SELECT max(occurrence) FROM {ALERT} WHERE pipeline = :pipeline AND stream = :stream AND kind = :kind"
_COLUMNS = "pipeline stream kind occurrence file what since last_success begun_at told over_told is_closed"
# Another process may have begun it meanwhile: of one subject one alert is open.
_NEW = f"{insert(ALERT, _COLUMNS)} ON CONFLICT DO NOTHING"
_TOLD = update(ALERT, "told over_told is_closed owner", f"{_KEY} AND owner = :former")

#: Pipeline, stream, kind and occurrence.
AlertKey = tuple[str, str, str, int]


class Finding(Struct, frozen=True, kw_only=True):
    """Something that is wrong."""

    pipeline: str
    #: Empty: the whole pipeline.
    stream: str = ""
    #: late, volume, failed, run, refused, start, clock, dead, due, missing, broken or gone.
    kind: str
    #: A sentence without its subject.
    what: str
    #: None: not known.
    since: datetime | None = None
    last_success: datetime | None = None

    @property
    def subject(self) -> Subject:
        """Stream and kind: of a pipeline there is one finding of each."""
        return self.stream, self.kind


class Alert(Struct, frozen=True, kw_only=True):
    """An alert to tell: of its beginning, or of its end (`is_over`)."""

    pipeline: str
    stream: str
    kind: str
    occurrence: int
    file: str
    what: str
    since: datetime | None
    last_success: datetime | None
    begun_at: datetime
    ended_at: datetime | None
    is_over: bool
    #: Numbers of the URLs that were told, of the beginning and of the end.
    told: tuple[int, ...]
    over_told: tuple[int, ...]

    @property
    def reached(self) -> tuple[int, ...]:
        """URLs that know of it already."""
        return self.over_told if self.is_over else self.told


class Alerts:
    """The alerts of a store. Several processes may look at once: one of them tells an alert."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def note(
        self,
        findings: Mapping[str, Iterable[Finding]],
        files: Mapping[str, str],
        unjudged: Mapping[str, Collection[Subject]],
        *,
        is_gone: Callable[[str], bool] = lambda _file: False,
        urls: int,
    ) -> tuple[Alert, ...]:
        """Write what is new and what is over, and claim what this process must tell; `told` comes after it.

        Args:
            findings: Pipeline -> what is wrong with it now. Alerts of other pipelines stay as they are.
            files: Pipeline -> its file.
            unjudged: Pipeline -> what nobody can judge now: such an alert stays as it is.
            is_gone: Tells of a file whether it is no more; its alerts are over.
            urls: Number of places to tell.
        """
        with self._transactions.write("note_alerts") as connection:
            now = self._transactions.now(connection)
            known = {(row.pipeline, row.stream, row.kind): row for row in connection.rows(_OPEN)}
            current = {(name, *each.subject): each for name, found in findings.items() for each in found}
            for (name, *subject), row in known.items():
                is_current = (name, *subject) in current
                is_judged = tuple(subject) not in unjudged.get(name, ()) if name in findings else is_gone(row.file)
                if is_current and row.ended_at is not None:
                    _set(connection, row, ended_at=None)
                elif not is_current and is_judged and row.ended_at is None:
                    _set(connection, row, ended_at=now)
            for key in sorted(current.keys() - known.keys()):  # in one order: else two processes wait for each other
                _begin(connection, current[key], files[key[0]], now)
            due = [row for row in connection.rows(_OPEN) if self._is_mine(row, now, urls)]
            return tuple(self._claimed(connection, row, now) for row in due)

    def told(self, alerts: Iterable[Alert], reached: Mapping[AlertKey, Collection[int]], urls: int) -> None:
        """Write which URLs were told of alerts that this process has claimed, and give the alerts free."""
        with self._transactions.write("alerts_told") as connection:
            for alert in alerts:
                places = sorted({*alert.reached, *reached.get(key_of(alert), ())})
                is_all = set(range(urls)) <= set(places)
                connection.run(
                    _TOLD,
                    {
                        **_key(alert),
                        "told": alert.told if alert.is_over else places,
                        "over_told": places if alert.is_over else alert.over_told,
                        "is_closed": alert.is_over and is_all,
                        "owner": None,
                        "former": self._transactions.owner,
                    },
                )

    def _is_mine(self, row: Row, now: datetime, urls: int) -> bool:
        """Whether something is to be told of an alert, and no other living process tells it."""
        reached = row.over_told if _is_over(row, now) else row.told
        if set(range(urls)) <= set(reached):
            return _is_over(row, now)  # a URL was taken away: only the end is left to write
        if row.owner is None or row.owner == self._transactions.owner:
            return True
        return not self._transactions.is_alive(row.owner, row.lease_until, now, _TELLING_S)

    def _claimed(self, connection: StoreConnection, row: Row, now: datetime) -> Alert:
        until = now + timedelta(seconds=_TELLING_S)
        _set(connection, row, owner=self._transactions.owner, lease_until=until)
        told, over_told = tuple(row.told), tuple(row.over_told)
        return value_of(Alert, row, is_over=_is_over(row, now), told=told, over_told=over_told)


def key_of(alert: Alert | Row) -> AlertKey:
    """Return what makes an alert one."""
    return alert.pipeline, alert.stream, alert.kind, alert.occurrence


def _is_over(row: Row, now: datetime) -> bool:
    return row.ended_at is not None and now - row.ended_at >= timedelta(seconds=OVER_AFTER_S)


def _begin(connection: StoreConnection, finding: Finding, file: str, now: datetime) -> None:
    about = {"pipeline": finding.pipeline, "stream": finding.stream, "kind": finding.kind}
    row: dict[str, Any] = {
        **about,
        "occurrence": (connection.value(_BEFORE, about) or 0) + 1,
        "file": file,
        "what": finding.what,
        "since": finding.since,
        "last_success": finding.last_success,
        "begun_at": now,
        "told": [],
        "over_told": [],
        "is_closed": False,
    }
    connection.run(_NEW, row)


def _key(alert: Alert | Row) -> dict[str, Any]:
    return dict(zip(("pipeline", "stream", "kind", "occurrence"), key_of(alert), strict=True))


def _set(connection: StoreConnection, row: Row, **values: Any) -> None:
    connection.run(update(ALERT, values, _KEY), {**_key(row), **values})
