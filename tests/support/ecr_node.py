"""The daemon's own composition on loopback, in a thread of its own, for clients that block: boto3 and the `aws` CLI.

    with ecr_nodes(tmp_path) as ecr:
        client = ecr.client("ecr")
        client.create_repository(repositoryName="team/app")
        ecr.advance(3600)

Without `nodes` there is one, of `ACCOUNT` in `REGION`, and nobody needs to authenticate; without a `clock` time stands
still at the moment of the start. Every answer that a client of boto3 gets is held against the service model: members
that it does not know, wrong types and values outside an enumeration fail the test. Clients do not retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

import boto3
import uvloop
import yaml
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from replicator import __version__
from replicator.config.loader import load_settings
from replicator.daemon.listener import bind
from replicator.daemon.secrets import SecretStore
from replicator.daemon.supervisor import Supervisor
from replicator.daemon.wiring import Shared, build_daemon
from replicator.registry.identities import IdentityDirectory
from replicator.telemetry.metrics import Metrics
from tests.support.aws_shapes import check_answer
from tests.support.clock import FakeClock
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
    from pathlib import Path

    from replicator.daemon.listener import Listener
    from replicator.daemon.node_parts import Daemon, NodeParts

ACCOUNT = "123456789012"
OTHER_ACCOUNT = "210987654321"
REGION = "us-east-1"
KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TARGETS = {"ecr": "AmazonEC2ContainerRegistry_V20150921", "ecr-public": "SpencerFrontendService"}
JSON_TYPE = "application/x-amz-json-1.1"
_START_DEADLINE = 20.0

Document = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """What came back for a raw request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> tuple[str, str]:
        """The error's code and text."""
        document = self.json()
        return document["__type"], document["message"]


@dataclass(repr=False)
class EcrNodes:
    """Running nodes, and everything of them that a test may look at."""

    directory: Path
    clock: FakeClock
    urls: dict[str, str]
    """Where each node listens, by `account/region`."""
    parts: dict[str, NodeParts]
    """What each node is made of. Touch it only by `run`: it lives in another thread."""
    _loop: asyncio.AbstractEventLoop
    _clients: list[Any] = field(default_factory=list)

    def url(self, node: str | None = None) -> str:
        """Return where a node listens; the first one by default."""
        return self.urls[node or next(iter(self.urls))]

    def host(self, node: str | None = None) -> str:
        """Return host and port of a node, as names of images begin."""
        return self.url(node).removeprefix("http://")

    def client(
        self,
        service: str = "ecr",
        *,
        key: str = KEY,
        secret: str = SECRET,
        token: str | None = None,
        region: str = REGION,
        node: str | None = None,
        checked: bool = True,
    ) -> Any:
        """Return a client of boto3 for a node; closed with the nodes. `checked`: hold answers against the model."""
        client = boto3.session.Session().client(
            service,
            region_name=region,
            endpoint_url=self.url(node),
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
            config=Config(
                retries={"total_max_attempts": 1},
                connect_timeout=5,
                read_timeout=30,
                ignore_configured_endpoint_urls=True,
            ),
        )
        if checked:
            client.meta.events.register("before-parse", check_answer)
        self._clients.append(client)
        return client

    def signed(self, operation: str, document: object = None, *, node: str | None = None, **options: Any) -> Reply:
        """Send one operation without any checks on this side, signed; the options are those of `prepared`."""
        return self.send("POST", "/", *self.prepared(operation, document, node=node, **options), node)

    def prepared(
        self,
        operation: str,
        document: object = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        service: str = "ecr",
        key: str = KEY,
        secret: str = SECRET,
        token: str | None = None,
        region: str = REGION,
        scope: str | None = None,
        node: str | None = None,
        target: str | None = None,
    ) -> tuple[bytes, dict[str, str]]:
        """Return body and headers of an operation, signed now; `scope` is the service in the signature."""
        data = json.dumps({} if document is None else document).encode() if body is None else body
        named = f"{TARGETS[service]}.{operation}" if target is None else target
        request = AWSRequest(
            "POST",
            self.url(node) + "/",
            headers={"Content-Type": JSON_TYPE, "X-Amz-Target": named, **(headers or {})},
            data=data,
        )
        SigV4Auth(Credentials(key, secret, token), scope or service, region).add_auth(request)
        return data, dict(request.headers.items())

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        node: str | None = None,
    ) -> Reply:
        """Send one HTTP request as it is."""
        request = urllib.request.Request(self.url(node) + path, body, dict(headers or {}), method=method)  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
                return Reply(answer.status, dict(answer.headers.items()), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, dict(error.headers.items()), error.read())

    @property
    def now(self) -> datetime:
        """The nodes' time."""
        return datetime.fromtimestamp(self.clock.now(), UTC)

    def advance(self, seconds: float) -> None:
        """Let time pass in the nodes, and return when whoever waited for it was woken."""

        async def pass_time() -> None:
            self.clock.advance(seconds)

        self.run(pass_time())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the nodes' loop, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def node(self, name: str | None = None) -> NodeParts:
        """Return the parts of a node."""
        return self.parts[name or next(iter(self.parts))]

    def until(self, question: Callable[[], Awaitable[bool]], within: float = 20.0) -> None:
        """Return once the answer, asked in the nodes' loop, is yes; fails after `within` real seconds."""

        def is_so() -> bool:
            return asyncio.run_coroutine_threadsafe(_asked(question), self._loop).result(30)

        eventually(is_so, "the nodes to get there", within=within)

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            client.close()


def node(region: str = REGION, account: str = ACCOUNT, **settings: object) -> Document:
    """Return the configuration of one node on a loopback port that the system chooses."""
    return {"account": account, "region": region, "listen": "127.0.0.1:0", **settings}


async def _asked(question: Callable[[], Awaitable[bool]]) -> bool:
    return await question()


@contextlib.contextmanager
def ecr_nodes(
    directory: Path,
    document: Mapping[str, Any] | None = None,
    *,
    nodes: Sequence[Document] | None = None,
    clock: FakeClock | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[EcrNodes]:
    """Run the nodes of a configuration, and its background work, until the block ends.

    Clients sign with the nodes' time, which stands still but for `advance`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "replicator.yaml"
    whole = {
        "version": 1,
        "storage_root": str(directory / "data"),
        "nodes": list(nodes or [node()]),
        **(document or {}),
    }
    config.write_text(yaml.safe_dump(whole, sort_keys=False))
    runner = _Runner(config, clock or FakeClock(float(int(time.time()))), environ or {})  # noqa: TID251 - signed dates are real ones
    thread = threading.Thread(target=runner.run, name="nodes")
    thread.start()
    try:
        running = runner.wait()
        with patch("botocore.auth.get_current_datetime", lambda *_: running.now.replace(tzinfo=None)):
            try:
                yield running
            finally:
                running.close()
    finally:
        runner.stop()
        thread.join(30)
        assert not thread.is_alive(), "the nodes did not stop"
    runner.check()


class _Runner:
    """The thread in which the nodes live."""

    def __init__(self, config: Path, clock: FakeClock, environ: Mapping[str, str]) -> None:
        self._config = config
        self._clock = clock
        self._environ = environ
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._running: EcrNodes | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            uvloop.run(self._main())
        except BaseException as error:  # noqa: BLE001 - told to the test's thread
            self._error = error
        finally:
            self._ready.set()

    def wait(self) -> EcrNodes:
        """Return the nodes once they serve."""
        assert self._ready.wait(_START_DEADLINE), "the nodes did not start"
        self.check()
        assert self._running is not None
        return self._running

    def check(self) -> None:
        """Raise what ended the nodes."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with contextlib.AsyncExitStack() as cleanup:
            listeners, daemon = self._build(cleanup, self._stop)
            cleanup.push_async_callback(daemon.close)
            await daemon.start()
            self._running = EcrNodes(
                self._config.parent,
                self._clock,
                {str(one): listener.url for one, listener in listeners.items()},
                {str(parts.settings.id): parts for parts in daemon.nodes},
                self._loop,
            )
            async with asyncio.TaskGroup() as group:
                background = group.create_task(Supervisor(self._clock).run(daemon.services()))
                self._ready.set()
                await self._stop.wait()
                await daemon.drain()
                background.cancel()

    def _build(self, cleanup: contextlib.AsyncExitStack, stop: asyncio.Event) -> tuple[dict[Any, Listener], Daemon]:
        settings = load_settings(self._config, self._environ)
        listeners: dict[Any, Listener] = {}
        for one in settings.nodes:
            listeners[one.id] = listener = bind(one)
            cleanup.callback(listener.socket.close)
        secrets = SecretStore(self._environ)
        shared = Shared(
            settings=settings,
            file=str(self._config),
            secrets=secrets,
            environ=self._environ,
            clock=self._clock,
            metrics=Metrics(__version__),
            access_log=None,
            draining=stop,
            peer_secret=secrets.peer_secret(settings),
            urls={one: listener.url for one, listener in listeners.items()},
            identities=IdentityDirectory(secrets.access_keys(settings)),
        )
        return listeners, build_daemon(shared, listeners)
