"""Upstreams that misbehave by chance: which request meets which fault follows from the seed alone."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from email.utils import formatdate
from typing import TYPE_CHECKING

from replicator.core.media_types import OCI_INDEX
from tests.chaos.chance import chance
from tests.support.upstreams import Content, Delay, FakeRegistry, FakeServer, Fault, Faults, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from aiohttp import web

    from replicator.core.clock import Clock
    from tests.chaos.world import Known, World
    from tests.support.upstreams import RecordedRequest

HANG = 3.0
"""Seconds of a hang: longer than the node's patience with one connection."""
_EXPIRE, _HOP, _LOOP, _CDN = "token expires", "redirect chain", "redirect loop", "redirect to another host"
_HTML = b"<html><body>Sorry, down for maintenance</body></html>"

_FLIP = "flipped bit"
_PAUSING, _RARE = ("429", "503"), 0.2
"""What has the upstream left alone for a while is rare, or the other faults would meet few requests."""


def _makers(clock: Clock) -> Mapping[str, Callable[[Random], Fault]]:
    """Return the faults by name; each is made with the numbers that chance gives it."""

    def status(code: int, **headers: str) -> Callable[[Random], Fault]:
        return lambda _: Fault(status=code, headers={name.replace("_", "-"): text for name, text in headers.items()})

    def late(_: Random) -> Fault:
        return Fault(status=429, headers={"Retry-After": formatdate(clock.now() + 20, usegmt=True)})

    def offset(random: Random) -> int:
        return int(10 ** random.uniform(0, 6))

    return {
        "401": status(401),
        "403": status(403),
        "404": status(404),
        "429": status(429),
        "429 for seconds": status(429, Retry_After="10"),
        "429 until a date": late,
        "500": status(500),
        "502": status(502),
        "503 for seconds": status(503, Retry_After="10"),
        "connection closed": lambda _: Fault(drop=True),
        "connection reset": lambda _: Fault(drop=True, reset=True),
        "delay": lambda random: Fault(hold=Delay(random.uniform(0.01, 0.3))),
        "hang before the answer": lambda _: Fault(hold=Delay(HANG)),
        "hang in the body": lambda random: Fault(hold=Delay(HANG), hold_after=offset(random)),
        "drip": lambda random: Fault(drip=(16_384, random.uniform(0.001, 0.02))),
        "cut": lambda random: Fault(cut_after=offset(random)),
        "cut by reset": lambda random: Fault(cut_after=offset(random), reset=True),
        "clean end too early": lambda random: Fault(cut_after=offset(random), chunked=True),
        "no length": lambda _: Fault(chunked=True),
        _FLIP: lambda random: Fault(flip=random.randrange(10**6)),
        "length too large": lambda _: Fault(length=10**6),
        "length too small": lambda _: Fault(length=1),
        "wrong type": lambda _: Fault(content_type="application/octet-stream"),
        "html page": lambda _: Fault(body=_HTML, content_type="text/html"),
        "no json": lambda _: Fault(body=b'{"schemaVersion":2,', content_type=OCI_INDEX),
        "lying digest": lambda _: Fault(headers={"Docker-Content-Digest": "sha256:" + 64 * "0"}),
        "claims gzip": lambda _: Fault(headers={"Content-Encoding": "gzip"}),
        "rate limit low": lambda random: Fault(
            headers={"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": f"{random.randrange(5)};w=21600"}
        ),
        _HOP: lambda random: Fault(redirect=f"/hop/{random.randint(0, 3)}"),
        _LOOP: lambda _: Fault(redirect="/loop"),
        _CDN: lambda _: Fault(redirect="/cdn"),
        _EXPIRE: lambda _: Fault(),
    }


def _is_verifiable(path: str) -> bool:
    """Tell whether what is sent has a digest: nobody can find a flipped bit in a list."""
    return "/blobs/" in path or "/manifests/" in path


class ChanceFaults(Faults):
    """Meets requests with faults by chance: the n-th request for one thing always meets the same."""

    def __init__(self, registry: ChaoticRegistry, seed: str, clock: Clock) -> None:
        super().__init__()
        self.intensity = 0.0
        """The part of the requests that meet a fault."""
        self.met: Counter[str] = Counter()
        self.by_path: Counter[str] = Counter()
        self._registry = registry
        self._seed = seed
        self._makers = _makers(clock)
        self._asked: Counter[str] = Counter()

    def take(self, request: RecordedRequest) -> Fault | None:
        """Return the fault for a request, or None."""
        self._asked[request.line] += 1
        random = chance(self._seed, request.line, self._asked[request.line])
        if request.path.startswith(("/hop", "/loop", "/cdn")) or random.random() >= self.intensity:
            return None
        kinds = sorted(self._makers if _is_verifiable(request.path) else self._makers.keys() - {_FLIP})
        kind = random.choices(kinds, [_RARE if one.startswith(_PAUSING) else 1.0 for one in kinds])[0]
        return self._applied(kind, self._makers[kind](random), request)

    def _applied(self, kind: str, fault: Fault, request: RecordedRequest) -> Fault | None:
        registry = self._registry
        if kind == _EXPIRE and registry.tokens is not None:
            registry.tokens.expire()
        if fault.redirect is not None:
            if request.path == "/token":
                return None
            host = registry.cdn.url if kind == _CDN else ""
            fault = Fault(redirect=host + ("" if kind == _CDN else fault.redirect) + request.path)
        self.met[kind] += 1
        self.by_path[request.path] += 1
        if fault.status == 404:
            registry.note_absence(request.path)
        return None if kind == _EXPIRE else fault


class Cdn(FakeServer):
    """Where an upstream keeps its blobs: another host, that must see no credentials."""

    def __init__(self) -> None:
        super().__init__()
        self.registry: ChaoticRegistry | None = None

    async def serve(self, request: web.Request) -> Content:
        """Answer as the registry, but nobody is asked who they are."""
        assert self.registry is not None
        return await self.registry.serve_openly(request, request.path)


class ChaoticRegistry(FakeRegistry):
    """A registry of the world's, with a token service, blobs elsewhere, and faults."""

    def __init__(self, world: World, upstream: str, seed: str, clock: Clock, cdn: Cdn) -> None:
        super().__init__(tokens=Tokens(expires_in=120))
        self.repositories = world.held[upstream]
        self.chance = ChanceFaults(self, f"{seed} {upstream}", clock)
        self.faults = self.chance
        self.cdn = cdn
        self.served: Counter[str] = Counter()
        """How often the content of a blob was sent, whole or not, by its path."""
        self.absent: dict[str, float] = {}
        """When it last said that it does not have something (seconds of the loop), by the path."""
        self._placeholder: socket.socket | None = None
        self._known: dict[str, Known] = {one.name: one for one in world.known if one.upstream == upstream}
        cdn.registry = self

    async def go(self) -> None:
        """Break off what is under way, and refuse connections until `come_back`; the port stays taken."""
        await self.stop()
        self._placeholder = socket.socket()
        self._placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._placeholder.bind(("127.0.0.1", self.port))

    async def come_back(self) -> None:
        """Accept connections again."""
        await self.start()
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None

    def note_absence(self, path: str) -> None:
        """Note that it says that it does not have something."""
        self.absent[path] = asyncio.get_running_loop().time()

    async def serve(self, request: web.Request) -> Content:
        """Answer truly; a hop leads to the next one, and the last one to the content."""
        if request.path.startswith("/loop"):
            return Content(307, {"Location": request.path})
        if request.path.startswith("/hop/"):
            left, _, rest = request.path.removeprefix("/hop/").partition("/")
            if int(left):
                return Content(307, {"Location": f"/hop/{int(left) - 1}/{rest}"})
            return await self.serve_openly(request, f"/{rest}")
        if "/referrers/" in request.path and self._unauthorized(request) is None:
            return self._referrers(request.path)
        content = await super().serve(request)
        return self._noted(request.path, content)

    async def serve_openly(self, request: web.Request, path: str) -> Content:
        """Answer for a path without asking who it is for."""
        name, noun, rest = path.removeprefix("/v2/").partition("/blobs/")
        if noun:
            return self._noted(path, await self._blob(request, name, rest))
        name, noun, rest = path.removeprefix("/v2/").partition("/manifests/")
        if noun:
            return self._noted(path, await self._manifest(request, name, rest))
        name, noun, _ = path.removeprefix("/v2/").partition("/tags/list")
        return self._noted(path, self._tags(name)) if noun else Content(404)

    async def _blob(self, request: web.Request, name: str, text: str) -> Content:
        content = await super()._blob(request, name, text)
        if request.method == "GET" and content.status in {200, 206}:
            self.served[f"/v2/{name}/blobs/{text}"] += 1
        return content

    def _referrers(self, path: str) -> Content:
        name, _, subject = path.removeprefix("/v2/").partition("/referrers/")
        known = self._known.get(name)
        referring = {} if known is None else {str(one): found for one, found in known.referrers.items()}
        images = [] if known is None else known.images
        listed = [image.descriptor() for image in images if image.digest in referring.get(subject, ())]
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
        return Content(200, {"Content-Type": OCI_INDEX}, json.dumps(document).encode())

    def _noted(self, path: str, content: Content) -> Content:
        if content.status == 404:
            self.note_absence(path)
        return content
