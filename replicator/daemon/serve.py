"""One run of the daemon: start, say what runs where, serve until asked to stop, drain, end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import uvloop

from replicator import __version__
from replicator.config.loader import load_with_warnings
from replicator.config.references import secrets_of
from replicator.daemon.banner import banner, suggestions
from replicator.daemon.identity_watch import IdentityWatch
from replicator.daemon.listener import bind
from replicator.daemon.secrets import SecretStore
from replicator.daemon.supervisor import Supervisor
from replicator.daemon.wiring import Shared, build_daemon
from replicator.registry.identities import IdentityDirectory
from replicator.telemetry.access_log import AccessLog
from replicator.telemetry.logs import configure_logging, get_logger, is_json
from replicator.telemetry.metrics import Metrics
from replicator.telemetry.redaction import Redactor
from replicator.telemetry.system_clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from replicator.config.model import Settings
    from replicator.core.names import NodeId
    from replicator.daemon.listener import Listener
    from replicator.daemon.node_parts import Daemon
    from replicator.daemon.supervisor import Service

_log = get_logger(__name__)


def run(config: Path, environ: Mapping[str, str]) -> int:
    """Serve a configuration until SIGTERM or SIGINT; return the exit code.

    Raises ConfigurationError or StorageError when the daemon cannot start; nothing listens then.
    """
    settings, doubtful = load_with_warnings(config, environ)
    redactor = Redactor(secrets_of(settings, environ))
    configure_logging(settings.log.level, settings.log.format, redactor)
    for problem in doubtful:
        _log.warning("configuration is doubtful", problem=str(problem))
    return uvloop.run(_serve(settings, config, environ, redactor))


async def _serve(settings: Settings, config: Path, environ: Mapping[str, str], redactor: Redactor) -> int:
    clock, stop = SystemClock(), _stop_on_signals()
    async with AsyncExitStack() as cleanup:
        listeners: dict[NodeId, Listener] = {}
        for node in settings.nodes:
            listeners[node.id] = listener = bind(node)
            cleanup.callback(listener.socket.close)
        access_log = _access_log(settings, redactor, clock)
        if access_log is not None:
            cleanup.callback(access_log.close)
        secrets = SecretStore(environ)
        identities = IdentityDirectory(secrets.access_keys(settings))
        shared = Shared(
            settings=settings,
            file=str(config),
            secrets=secrets,
            environ=environ,
            clock=clock,
            metrics=Metrics(__version__),
            access_log=access_log,
            draining=stop,
            peer_secret=secrets.peer_secret(settings),
            urls={node: listener.url for node, listener in listeners.items()},
            identities=identities,
        )
        daemon = build_daemon(shared, listeners)
        watch = IdentityWatch(config, settings, secrets, identities, redactor, clock, shared.users)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, watch.ask)
        cleanup.push_async_callback(daemon.close)
        await daemon.start()
        _announce(settings, str(config), daemon)
        await _supervise(daemon, Supervisor(clock), stop, _own_services(watch, access_log))
    _log.info("stopped")
    return 0


def _own_services(watch: IdentityWatch, access_log: AccessLog | None) -> dict[str, Service]:
    services: dict[str, Service] = {"identities": watch.run}
    if access_log is not None:
        services["access log"] = access_log.run
    return services


async def _supervise(
    daemon: Daemon, supervisor: Supervisor, stop: asyncio.Event, own_services: Mapping[str, Service]
) -> None:
    """Keep the background work going until asked to stop; drain, and then end it."""
    services = {**daemon.services(), **own_services}
    async with asyncio.TaskGroup() as group:
        background = group.create_task(supervisor.run(services))
        await stop.wait()
        _log.info("stopping", grace_seconds=daemon.grace)
        await daemon.drain()
        background.cancel()


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _access_log(settings: Settings, redactor: Redactor, clock: SystemClock) -> AccessLog | None:
    if not settings.log.access_log:
        return None
    return AccessLog(clock, redactor, as_json=is_json(settings.log.format, sys.stdout))


def _announce(settings: Settings, config: str, daemon: Daemon) -> None:
    """Say what runs where and what to try next: as text for people, as events for machines."""
    for node, url in daemon.urls.items():
        _log.info("node is listening", node=str(node), url=url)
    if is_json(settings.log.format, sys.stdout):
        _log.info("try next", commands=suggestions(settings, config, daemon.urls))
    else:
        sys.stdout.write(banner(settings, config, daemon.urls))
        sys.stdout.flush()
    _log.info("started", version=__version__, pid=os.getpid())
