"""`connector: airbyte`: a connector of Airbyte's as a source, without Docker: a process, never in this one."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError, Interrupted
from ..programs.environments import plugins_folder
from ..programs.kept import keep, kept_file, kept_value
from ..programs.process import PluginProcess, PrivateFiles
from ..programs.program_source import ProgramSource
from ..programs.under_way import ReadUnderWay
from ..read_spec import ReplicationMethod
from ..secret_texts import MIN_LENGTH
from ..settings import parse_settings, resolve_path
from ..stream import Block, Bookmark, Event, Stream
from .catalog import adjusted, configured_catalog, demand_readable, entries_of, name_of, schema_of, streams_of
from .config_file import ConfigFile
from .manifest import Manifest, licence_beside, load_manifest
from .messages import Listener, Message, decoded
from .program import command_of, environment_of, name_of_connector, program_of
from .reader import STATE, AirbyteReader, AirbyteStream
from .settings import INJECTED, AirbyteSettings
from .specification import check_config, declared_secrets, secrets_of, short_secrets, spelled, texts

log = logging.getLogger("syncblocks")

#: Most bytes that a command other than `read` may write.
_MAX_ANSWER_BYTES = 512 << 20


class AirbyteSource(ProgramSource):
    """One connector. Its streams are one group, which one process reads."""

    settings = AirbyteSettings

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        super().__init__()
        self._settings = settings = parse_settings(AirbyteSettings, config, "airbyte")
        self._folder = folder
        self.name = name_of_connector(settings)
        self._label = f"airbyte {self.name}"
        self._spec_lock = threading.Lock()
        self._manifest: Manifest | None = None
        self._spec: Mapping[str, Any] | None = None
        #: What is masked; grows when the connector changes its credentials.
        self._secrets = spelled(list(settings.env.values()))
        path = settings.config_file
        self._config_file = ConfigFile(resolve_path(path, folder), settings.config) if path else None

    # -- protocol ------------------------------------------------------------------------------------------------

    def identity(self) -> str:
        return f"airbyte://{self.name}"

    def check(self) -> None:
        """Check the config by the specification, then let the connector check its connection."""
        self._demand_config()
        place = self._settings.manifest
        if "://" not in place and (licence := licence_beside(resolve_path(place, self._folder))):
            log.warning("%s: the manifest's licence is %s", self._label, licence)  # `check` shows no lower level
        for key in short_secrets(self._settings.config, self._specification()):
            log.warning(
                "%s: the secret %s has fewer than %s characters. Logs show it, and the connector masks each text that "
                "contains it. Use a longer secret",
                self._label,
                key,
                MIN_LENGTH,
            )
        answer = self._asked("check", "CONNECTION_STATUS").connectionStatus
        status = answer.get("status") if isinstance(answer, dict) else None
        if status != "SUCCEEDED":
            reason = answer.get("message") if isinstance(answer, dict) else None
            raise ConnectorConfigError(
                f"{self._label}: its check failed: {self._clear(str(reason or 'without a reason'))}",
                connector="airbyte",
                key="config",
            )

    def discover(self) -> Sequence[Stream]:
        return streams_of(self._adjusted())

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        """Read all streams by one process.

        Raises:
            ConnectorConfigError: a stream cannot be read as the pipeline file says.
        """
        demand_readable(self._adjusted(), streams)
        self._demand_no_lookback(streams)
        return [list(streams)] if streams else []

    def offers(self, stream: Stream) -> Sequence[str]:
        return ("arrow",)

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        self._demand_config()
        entries = {name_of(entry): entry for entry in self._adjusted()}
        missing = next((stream for stream in group if stream.name not in entries), None)
        if missing is not None:
            raise FatalConnectorError(f"{self._label} has no stream {missing.name!r} any more", stream=missing.name)
        wider = self._wider()
        # FULL_TABLE reads from scratch: with the state of an INCREMENTAL run it would read what is new alone.
        kept = {
            stream.name: None if stream.read.method is ReplicationMethod.FULL_TABLE else bookmarks.get(stream.name)
            for stream in group
        }
        streams = [AirbyteStream(each, entries[each.name], kept[each.name], wider.get(each.name)) for each in group]
        listener = self._listener(is_quiet=any(stream.read.masks is not None for stream in group))
        reader = AirbyteReader(
            listener,
            streams,
            [(entry.get("namespace") or None, entry["name"]) for entry in entries.values()],
            self._keep_wider,
            checkpoint_records=self._settings.checkpoint_records,
            checkpoint_s=self._settings.checkpoint_s,
        )
        under_way = ReadUnderWay({stream.name for stream in group})
        with self._noted(under_way):
            try:
                with (
                    self._started(
                        "read",
                        catalog=configured_catalog(list(entries.values()), group),
                        state=_states(streams, kept),
                        is_in_turn=any(each.is_incremental and not each.stream.read.may_repeat for each in streams),
                        is_quiet=any(stream.read.masks is not None for stream in group),
                    ) as plugin,
                    under_way.running(plugin),
                ):
                    yield from reader.read(plugin.blocks())
            except ConnectorError as error:
                if not isinstance(error, Interrupted):
                    self._forget_catalog()  # the cached catalog may be out of date
                raise

    def _demand_no_lookback(self, streams: Sequence[Stream]) -> None:
        manifest = self._loaded()
        lookbacks = manifest.lookbacks(self._started_with()) if manifest is not None else {}
        for each in streams:
            is_whole = each.read.method is ReplicationMethod.FULL_TABLE
            if each.name in lookbacks and not is_whole and not each.read.may_repeat:
                raise ConnectorConfigError(
                    f"stream {each.name!r}: each run reads again what lies up to {lookbacks[each.name]} below its "
                    "state (`lookback_window` of the manifest), and an append writes those records again: use merge, "
                    "or take `lookback_window` out of a copy of the manifest",
                    connector="airbyte",
                    stream=each.name,
                )

    def _started_with(self) -> Mapping[str, Any]:
        """Return the connector's config, with the credentials that it has changed."""
        if self._config_file is None:
            return self._settings.config
        config = self._config_file.read()
        self._mask_changed(config)
        return config

    # -- the program ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _started(
        self,
        verb: str,
        *,
        catalog: Any = None,
        state: Any = None,
        is_in_turn: bool = False,
        is_quiet: bool = False,
    ) -> Iterator[PluginProcess]:
        """Start the connector; its files live as long as it does.

        Args:
            verb: its command.
            catalog: the configured catalog of a read.
            state: states of its streams; None: there are none.
            is_in_turn: a manifest reads with one thread.
            is_quiet: nothing that it writes to its standard error is shown.
        """
        settings, manifest = self._settings, self._loaded()
        program = program_of(settings, self._folder)
        with ExitStack() as stack:
            files = stack.enter_context(PrivateFiles())
            command = [*command_of(settings, program), verb]
            if verb != "spec":
                if self._config_file is not None:
                    stack.enter_context(self._config_file.locked())
                config = self._started_with()
                command += ["--config", str(files.write("config.json", config))]
                if manifest is not None:
                    text = manifest.read_in_turn() if is_in_turn else manifest.text
                    command += ["--manifest-path", str(files.write_bytes("manifest.yaml", text))]
                if settings.components:
                    command += ["--components-path", str(_demand_file(settings.components, self._folder))]
            if catalog is not None:
                command += ["--catalog", str(files.write("catalog.json", catalog))]
            if state:
                command += ["--state", str(files.write("state.json", state))]
            yield stack.enter_context(
                PluginProcess(
                    self._label,
                    command,
                    folder=self._folder,
                    env=environment_of(settings, str(program)),
                    secrets=self._secrets,
                    hang_timeout_s=settings.hang_timeout_s,
                    is_quiet=is_quiet,
                    connector="airbyte",
                )
            )

    def _asked(self, verb: str, wanted: str) -> Message:
        """Run a command to its end; return its message of the wanted type.

        Raises:
            ConnectorError: the connector tells an error, fails, or does not answer.
        """
        listener, error, answer, size = self._listener(), None, None, 0
        under_way = ReadUnderWay({""})
        with self._noted(under_way), self._started(verb) as plugin, under_way.running(plugin):
            try:
                for block in plugin.blocks():
                    size += len(block)
                    if size > _MAX_ANSWER_BYTES:
                        raise FatalConnectorError(f"{self._label} writes without end", connector="airbyte")
                    for line in filter(None, map(bytes.strip, block.split(b"\n"))):
                        try:
                            message = decoded(line)
                        except ValueError:
                            message = None
                        if message is None:
                            listener.printed(line)
                        elif message.type == wanted:
                            answer = message
                        elif message.type == "TRACE" and isinstance(message.trace, dict):
                            if isinstance(held := message.trace.get("error"), dict):
                                error = listener.error(held)
                        else:
                            listener.take(message)
            except Interrupted:
                raise
            except ConnectorError as failure:
                error = error or failure
        if answer is None:
            raise error or FatalConnectorError(
                f"{self._label}: its command {verb!r} gave no {wanted}", connector="airbyte"
            )
        return answer

    # -- manifest, specification, config -------------------------------------------------------------------------

    def _loaded(self) -> Manifest | None:
        if not self._settings.manifest:
            return None
        with self._spec_lock:
            if self._manifest is None:
                self._manifest = load_manifest(self._settings, self._folder, self._kept_folder())
            return self._manifest

    def _specification(self) -> Mapping[str, Any]:
        """Return what the connector's config has to be: of a manifest, or as the program says."""
        manifest = self._loaded()
        if manifest is not None:
            return manifest.spec
        if self._spec is None:
            kept = kept_file(plugins_folder(self._folder), "spec", self._place())
            # The code behind a program may change, that of an installed package does not.
            found = kept_value(kept) if self._settings.package else None
            if not isinstance(found, dict):
                self._mask(secrets_of(self._settings.config, {}, {}))  # until its secrets are known
                answer = self._asked("spec", "SPEC").spec
                found = answer.get("connectionSpecification") if isinstance(answer, dict) else None
                found = found if isinstance(found, dict) else {}
                keep(kept, found)
            self._spec = found
        return self._spec

    def _demand_config(self) -> None:
        """Check the config by the connector's specification, and learn its secrets."""
        spec = self._specification()
        self._mask(secrets_of(self._settings.config, spec, {}))
        check_config(self._settings.config, spec)

    def _take_config(self, config: Mapping[str, Any]) -> None:
        """Keep a config that the connector has changed.

        Raises:
            ConnectorConfigError: it holds new credentials, and no file is named for them.
        """
        changed = {key: value for key, value in config.items() if not key.startswith(INJECTED)}
        self._mask_changed(changed)
        if self._config_file is not None:
            self._config_file.write(changed)
            return
        # A migration of the config moves its values: they are no new ones.
        if set(declared_secrets(changed, self._specification())) - set(texts(self._settings.config)):
            raise ConnectorConfigError(
                f"{self._label} has changed its credentials, and the next run needs the new ones: name a file for "
                "them by `config_file: .secrets/NAME.json`",
                connector="airbyte",
                key="config_file",
            )

    def _mask_changed(self, config: Mapping[str, Any]) -> None:
        """Mask all values that differ from those of the pipeline file."""
        given = self._settings.config
        self._mask(spelled([text for key in config if config[key] != given.get(key) for text in texts(config[key])]))
        self._mask(secrets_of(config, self._specification(), {}))

    def _mask(self, secrets: Sequence[str]) -> None:
        with self._lock:
            self._secrets += [secret for secret in secrets if secret not in self._secrets]

    def _clear(self, text: str) -> str:
        return self._listener().clear(text)

    def _listener(self, *, is_quiet: bool = False) -> Listener:
        return Listener(self._label, self._secrets, self._take_config, is_quiet=is_quiet)

    # -- the catalog ---------------------------------------------------------------------------------------------

    def _schemas(self) -> Mapping[str, Any]:
        return {name_of(entry): schema_of(entry) for entry in self._adjusted()}

    def _adjusted(self) -> list[dict[str, Any]]:
        return adjusted(self._discovered(), self._settings.schema_)

    def _discovered(self) -> list[dict[str, Any]]:
        with self._catalog_lock:
            if self._entries is None:
                self._demand_config()
                self._entries = self._kept_catalog()
            if self._entries is None:
                self._entries = entries_of(self._asked("discover", "CATALOG").catalog, self._label)
                if self._entries and self._settings.discovery_cache_s:
                    keep(self._catalog_file(), {"streams": self._entries})
            return self._entries

    def _kept_catalog(self) -> list[dict[str, Any]] | None:
        kept = self._catalog_file()
        with contextlib.suppress(OSError, FatalConnectorError):
            if 0 <= time.time() - kept.stat().st_mtime < self._settings.discovery_cache_s:
                return entries_of(kept_value(kept), self._label)
        return None

    def _place(self) -> list[Any]:
        """Return all that decides which connector runs."""
        settings, manifest = self._settings, self._loaded()
        place: list[Any] = [
            settings.package,
            settings.python,
            "" if manifest is None else manifest.text.decode("latin1"),
        ]
        if settings.executable:
            program = program_of(settings, self._folder)
            place += [str(program), program.stat().st_mtime_ns]
        return place

    def _catalog_file(self) -> Path:
        settings = self._settings
        return kept_file(
            plugins_folder(self._folder), "catalog", [*self._place(), settings.config, settings.env, str(self._folder)]
        )

    def _wider_file(self) -> Path:
        return kept_file(plugins_folder(self._folder), "wider", [self.name, self._settings.config, str(self._folder)])

    def _kept_folder(self) -> Path:
        return plugins_folder(self._folder) / "kept"


def _states(streams: Collection[AirbyteStream], bookmarks: Mapping[str, Bookmark | None]) -> list[dict[str, Any]]:
    """Return the states of the streams that have one.

    Raises:
        ConnectorConfigError: a bookmark is another connector's.
    """
    found = []
    for each in streams:
        name, bookmark = each.stream.name, bookmarks[each.stream.name]
        if not bookmark or bookmark.get(STATE, "") is None:
            continue
        if STATE not in bookmark:
            raise ConnectorConfigError(
                f"stream {name!r}: the bookmark is no state of an Airbyte connector; give it as "
                f'{{"{STATE}": ...}} with `syncblocks state set`, or start over with `syncblocks state reset`',
                connector="airbyte",
                stream=name,
            )
        namespace, called = each.descriptor
        descriptor = {"name": called, **({"namespace": namespace} if namespace else {})}
        held = {"stream_descriptor": descriptor, "stream_state": bookmark[STATE]}
        found.append({"type": "STREAM", "stream": held})
    return found


def _demand_file(components: str, folder: Path) -> Path:
    path = resolve_path(components, folder)
    if not path.is_file():
        raise ConnectorConfigError(
            f"config of connector 'airbyte': components: no file {path}", connector="airbyte", key="components"
        )
    return path


__all__ = ["AirbyteSource"]
