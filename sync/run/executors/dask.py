"""The engine for a Dask cluster: sends references to its workers, and the pipeline's code through its plugins."""

from __future__ import annotations

import json
import logging
import ssl
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import distributed

from ...config import Pipeline
from ...config.executor import ExecutorSettings
from ...errors import ConfigError, ExecutorError, SyncError
from ...store.owner import current_owner
from .bundle import Bundle, own_version, pack
from .engine import CALLS_A_WORKER, sent_with_code
from .flight import Answer
from .threads import in_thread
from .worker.children import run_streams
from .worker.plugin import CodePlugin, probe, release

log = logging.getLogger("syncblocks")

T = TypeVar("T")

#: Seconds to reach the scheduler, and to wait for the first worker.
CONNECT_S = 20.0
#: Seconds for workers to close their connections, or to answer.
ASK_S = 15.0
#: Seconds for which knowledge about the workers is valid.
KNOWN_S = 5.0
#: Seconds without workers until waiting calls are given up.
ABSENT_S = 60.0
DEFAULT_WORKERS = 4


class DaskEngine:
    """A connection to a cluster for one run; see `Engine`. Close it when done."""

    def __init__(self, client: Any, pipeline: Pipeline, *, is_bound: bool, owned: list[Any]) -> None:
        """Send the code, and check the workers.

        Args:
            client: client of the cluster.
            pipeline: its streams run on the cluster.
            is_bound: whether only workers on this machine can reach the pipeline's systems.
            owned: resources to close at the end, in this order.

        Raises:
            ConfigError: no worker can run the pipeline.
            ExecutorError: there is no worker, or the cluster does not answer.
        """
        self._client = client
        self._owned = owned
        self._is_bound = is_bound
        self._bundle: Bundle = pack(pipeline)
        #: Last time when workers were looked for, and when some were seen.
        self._looked = self._seen = time.monotonic()
        self._look: Future[None] | None = None
        #: Workers that may run streams, by address, with the number of their threads.
        self._workers: dict[str, int] = {}
        #: Addresses of machines whose workers may run streams; None: all. A worker that restarts has another port.
        self._allowed: list[str] | None = None
        #: Key of a running call -> the workers that may run it, and the function that gives it up.
        self._calls: dict[str, tuple[frozenset[str], Callable[[], None]]] = {}
        self._is_registered = False
        self._answered(self._count_workers)
        if not self._workers:
            raise ExecutorError(f"no worker has joined the Dask cluster within {CONNECT_S:g} s")
        plugin = CodePlugin(self._bundle.name, self._bundle.archive)
        self._answered(lambda: client.register_plugin(plugin, name=self._plugin))
        self._is_registered = True
        self._allowed = self._checked_workers(pipeline)
        self._answered(self._count_workers)

    @property
    def _plugin(self) -> str:
        return f"syncblocks-{self._bundle.name[:16]}"

    def _checked_workers(self, pipeline: Pipeline) -> list[str] | None:
        """Ask all workers for their identity; return the machines whose workers may run streams.

        Raises:
            ConfigError: a worker has another version, or only this machine's workers may run streams and there are
                none.
        """
        found = self._ask(probe)
        mine = current_owner()
        here, hosts = [], dict[str, int]()
        for address, answer in found.items():
            if not isinstance(answer, Mapping):
                raise ConfigError(
                    f"worker {address} cannot import syncblocks {own_version()}: install it there", key="executor"
                )
            if answer["version"] != own_version():
                raise ConfigError(
                    f"worker {address} has syncblocks {answer['version']}, this machine has {own_version()}: "
                    "install the same version everywhere",
                    key="executor",
                )
            hosts[answer["host"]] = hosts.get(answer["host"], 0) + int(answer["threads"])
            if (answer["boot_id"], answer["host"]) == (mine.boot_id, mine.host):
                here.append(address.partition("://")[2].rpartition(":")[0])
        #: Maximum of streams on one machine at once: they share its memory.
        self.workers_on_host = max(hosts.values(), default=1)
        if not self._is_bound:
            return None
        if not here:
            raise ConfigError(
                f"{pipeline.source.connector} and {pipeline.destination.connector} need this machine "
                "(a local path or localhost), but no worker of the cluster is on it: write executor: {dask: local}, or "
                "use addresses that all machines reach",
                key="executor",
            )
        return sorted(set(here))

    @property
    def slots(self) -> int:
        """See `Engine`: two for each thread of a worker, so that no thread waits for the coordinator."""
        return CALLS_A_WORKER * self.most_at_once

    @property
    def most_at_once(self) -> int:
        """See `Engine`: a call stays with the workers that existed when it was sent."""
        self._refresh()
        return max(1, sum(self._workers.values()))

    @property
    def absent(self) -> str:
        """See `Engine`."""
        self._refresh()
        if time.monotonic() - self._seen < ABSENT_S:
            return ""
        where = "" if self._allowed is None else " on this machine"
        return f"the Dask cluster has had no workers{where}, or has not answered, for {ABSENT_S:g} s"

    def _refresh(self) -> None:
        """Check the workers every few seconds, in the background: a scheduler that hangs must not delay the run."""
        if time.monotonic() - self._looked >= KNOWN_S and (self._look is None or self._look.done()):
            self._looked = time.monotonic()
            self._look = in_thread(self._count_workers, "dask")

    def _count_workers(self) -> None:
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
        except Exception as error:
            log.debug("the scheduler does not answer", exc_info=error)
            return
        hosts = self._allowed
        fit = {address: each for address, each in workers.items() if hosts is None or each["host"] in hosts}
        if not fit:
            return
        self._seen = time.monotonic()
        self._workers = {address: int(worker["nthreads"]) for address, worker in fit.items()}
        for may_run, give_up in list(self._calls.values()):
            if may_run.isdisjoint(fit):  # it would wait for workers that do not return
                give_up()

    def submit(self, payload: str, answered: Callable[[Answer], None]) -> Callable[[], None]:
        """See `Engine`. Each call has its own key: Dask neither repeats nor merges calls."""
        return sent_with_code(partial(self._send, payload), self._bundle.archive, answered)

    def _send(self, payload: str, answered: Callable[[Answer], None], archive: bytes | None) -> Callable[[], None]:
        key, workers = f"syncblocks-{uuid.uuid4().hex}", list(self._workers)
        try:
            future = self._client.submit(
                run_streams,
                self._bundle.name,
                payload,
                *(() if archive is None else (archive,)),
                key=key,
                pure=False,
                retries=0,
                workers=workers,
                allow_other_workers=False,
            )
        except Exception as error:
            raise ExecutorError(f"the Dask cluster takes no work: {type(error).__name__}") from error

        def give_up() -> None:
            if self._calls.pop(key, None) is not None:
                future.release()
                answered(None)

        def done(ended: Any) -> None:
            if self._calls.pop(key, None) is None:
                return
            answer: Answer = None
            try:
                if ended.status == "finished":
                    # An answer without news is not fetched from the worker: its type is enough.
                    answer = {} if ended.type is type(None) else json.loads(ended.result(timeout=ASK_S))
            except Exception as error:
                log.debug("an answer was lost", exc_info=error)
            ended.release()
            answered(answer)

        self._calls[key] = frozenset(workers), give_up
        future.add_done_callback(done)

        def withdraw() -> None:
            # A waiting call is cancelled; a running one continues until the run store stops it.
            self._calls.pop(key, None)
            future.release()

        return withdraw

    def release(self) -> None:
        """See `Engine`."""
        try:
            self._ask(release, self._bundle.name)
        except SyncError as error:
            log.warning("workers may still have connections: %s", error)

    def close(self) -> None:
        """Remove the code from the cluster, and disconnect. Idempotent."""
        ending, self._owned = self._owned, []
        if self._is_registered:
            self._is_registered = False
            self._bounded(lambda: self._client.unregister_worker_plugin(self._plugin), "the code stays on the workers")
        for each in ending:
            self._bounded(each.close, "the connection to the Dask cluster was not closed cleanly")

    def _bounded(self, work: Callable[[], Any], else_: str) -> None:
        try:
            in_thread(work, "dask").result(timeout=ASK_S)
        except Exception as error:
            log.debug("%s", else_, exc_info=error)

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Mapping[str, Any]:
        """Call a function on all workers, bypassing their queues.

        Raises:
            ExecutorError: some workers do not answer in time.
        """
        return dict(self._answered(lambda: self._client.run(function, *arguments, on_error="return")))

    @staticmethod
    def _answered(ask: Callable[[], T]) -> T:
        try:
            return in_thread(ask, "dask").result(timeout=ASK_S)
        except Exception as error:
            raise ExecutorError(f"the workers of the Dask cluster do not answer: {type(error).__name__}") from error


def open_dask(pipeline: Pipeline, given: Any, *, is_bound: bool) -> DaskEngine:
    """Connect to the cluster of the pipeline file, or use a given client.

    Args:
        pipeline: names the cluster.
        given: a `distributed.Client`; None: use the pipeline file's.
        is_bound: see `DaskEngine`.

    Raises:
        ConfigError: distributed is not installed, or no worker can run the pipeline.
        ExecutorError: the cluster cannot be reached.
    """
    if given is not None:
        return DaskEngine(given, pipeline, is_bound=is_bound, owned=[])
    settings = pipeline.executor
    owned: list[Any] = []
    try:
        logging.getLogger("distributed").setLevel(logging.ERROR)  # the run reports errors
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the cluster's ports
            if settings.is_local:
                owned.append(_local_cluster(settings))
                client = distributed.Client(owned[0], set_as_default=False, timeout=CONNECT_S)
            else:
                security = _security(pipeline)
                client = distributed.Client(
                    settings.dask, security=security, set_as_default=False, timeout=CONNECT_S, name="syncblocks"
                )
        owned.insert(0, client)
        in_thread(lambda: client.wait_for_workers(1, timeout=CONNECT_S), "dask").result(timeout=2 * CONNECT_S)
        return DaskEngine(client, pipeline, is_bound=is_bound, owned=owned)
    except BaseException as error:
        for each in owned:
            with suppress(Exception):
                each.close()
        if isinstance(error, SyncError) or not isinstance(error, Exception):
            raise
        raise ExecutorError(f"the Dask cluster at {settings.dask} cannot be used: {_why(error)}") from error


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no scheduler or worker has answered within {CONNECT_S:g} s"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _local_cluster(settings: ExecutorSettings) -> Any:
    return distributed.LocalCluster(
        n_workers=settings.workers or DEFAULT_WORKERS,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        security=distributed.Security.temporary(),  # otherwise every user of this machine could submit work
        silence_logs=logging.ERROR,
        memory_limit=0,
    )


def _security(pipeline: Pipeline) -> Any:
    from distributed.security import Security

    said = pipeline.executor.security
    if said is None:
        return None
    ca, cert, key = (str(pipeline.resolve(path)) for path in (said.ca, said.cert, said.key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _demand_pem("ca", ca, lambda: context.load_verify_locations(ca))
    _demand_pem("cert", f"{cert}, with the key {key}", lambda: context.load_cert_chain(cert, key, password=""))
    return Security(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True)


def _demand_pem(name: str, shown: str, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ValueError) as error:  # no such file, or not in PEM format
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        message = f"{shown}: no PEM that TLS can use: {why}"
        raise ConfigError(message, key=f"executor.security.{name}") from error
