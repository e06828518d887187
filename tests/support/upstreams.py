"""A registry on loopback that does what a test tells it to: serve images, take pushes, and misbehave on request.

    async with FakeRegistry() as upstream:
        image = upstream.add_image("library/alpine", tag="3.20", layers=[b"..."])
        upstream.faults.on("GET /v2/library/alpine/blobs/*", Fault(cut_after=100), times=1)

Every request is recorded with its headers, so that a test can say what was asked how often, and that no Authorization
reached a host that must not see it. Nothing here sleeps: a fault that hangs waits for `Hold.release`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fnmatch
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from replicator.core.digest import Digest, algorithm_of, digest_of, is_digest, parse_digest
from replicator.core.media_types import OCI_INDEX
from tests.support.images import Built, BuiltImage, build_image, walk

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class RecordedRequest:
    """A request as it arrived; header names are matched without regard to case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    remote: str | None = None

    @property
    def line(self) -> str:
        """Method and path, what patterns are matched against."""
        return f"{self.method} {self.path}"


class Hold:
    """A point where the server waits: `reached` tells the test that it is there, `release` lets it go on."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._released = asyncio.Event()
        self.waiting = 0

    async def reached(self) -> None:
        """Wait until the server stands here."""
        await self._reached.wait()

    def release(self) -> None:
        """Let the server go on, now and whenever it comes here again."""
        self._released.set()

    async def wait(self) -> None:
        """Stand here until released; called by the server."""
        self._reached.set()
        self.waiting += 1
        try:
            await self._released.wait()
        finally:
            self.waiting -= 1


class Delay(Hold):
    """A hold that lets go by itself after some seconds: for servers that nobody is at hand to release."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def wait(self) -> None:
        """Stand here for the seconds, or until released."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await super().wait()


@dataclass(frozen=True)
class Fault:
    """One way to misbehave. Without `status`, `body` or `redirect` the true answer is served, and then damaged.

    `drop` closes the connection without an answer. `hold` waits before the answer begins, or with `hold_after` when
    so many bytes of the body are out. `cut_after` ends the connection after so many bytes (`reset`: by RST rather
    than FIN); with `chunked` no length is announced, and a cut is a clean end. `length` is announced whatever is
    sent. `flip` inverts one bit of the byte at that offset, counted round and round. With `drip`, a number of bytes and
    of seconds, the body comes in pieces with pauses in between. `answer` replaces everything.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str | None = None
    redirect: str | None = None
    drop: bool = False
    hold: Hold | None = None
    hold_after: int | None = None
    cut_after: int | None = None
    reset: bool = False
    chunked: bool = False
    length: int | None = None
    flip: int | None = None
    drip: tuple[int, float] | None = None
    answer: Answer | None = None


class Faults:
    """What to do to which requests. The latest rule that matches and is not used up applies."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def on(self, pattern: str, fault: Fault, *, times: int | None = None) -> None:
        """Apply `fault` to requests like `GET /v2/*/blobs/*` (no method: any), the next `times` of them or all."""
        self._rules.insert(0, _Rule(pattern, fault, times))

    def clear(self) -> None:
        """Behave again. Holds that are being waited at stay until released."""
        self._rules.clear()

    def holds(self) -> list[Hold]:
        """Return every hold of every rule."""
        return [rule.fault.hold for rule in self._rules if rule.fault.hold is not None]

    def take(self, request: RecordedRequest) -> Fault | None:
        """Return the fault for a request and count it as used."""
        for rule in self._rules:
            if rule.left != 0 and matches(rule.pattern, request):
                if rule.left is not None:
                    rule.left -= 1
                return rule.fault
        return None


@dataclass
class _Rule:
    pattern: str
    fault: Fault
    left: int | None


def matches(pattern: str, request: RecordedRequest) -> bool:
    """Tell whether a request fits `METHOD /path` or `/path`, with the shell's wildcards."""
    subject = request.path if pattern.startswith(("/", "*")) else request.line
    return fnmatch.fnmatchcase(subject, pattern)


@dataclass
class Content:
    """A true answer, before it is damaged."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class FakeServer:
    """An HTTP server on a free loopback port that records what it is asked and applies faults."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.faults = Faults()
        self.requests: list[RecordedRequest] = []
        self.headers: dict[str, str] = {}
        """Sent with every true answer."""
        self.open_answers = 0
        self._tls = tls
        self._host = host
        self._port = 0
        self._runner: web.ServerRunner | None = None
        self._changed = asyncio.Event()
        self._held: list[Hold] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; after `stop` on the same port again."""
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, ssl_context=self._tls)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Refuse connections from now on, and break those that are open."""
        for hold in [*self.faults.holds(), *self._held]:
            hold.release()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        """The port, known once started."""
        return self._port

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"{self._host}:{self._port}"

    @property
    def url(self) -> str:
        """The URL to configure, without a path."""
        return f"{'https' if self._tls else 'http'}://{self.authority}"

    def asked(self, pattern: str = "*") -> list[RecordedRequest]:
        """Return the requests that match, in order."""
        return [request for request in self.requests if matches(pattern, request)]

    def count(self, pattern: str = "*") -> int:
        """Return how many requests match."""
        return len(self.asked(pattern))

    def authorizations(self, pattern: str = "*") -> list[str]:
        """Return every Authorization that matching requests carried."""
        sent = (request.headers.get("authorization") for request in self.asked(pattern))
        return [value for value in sent if value is not None]

    async def seen(self, pattern: str = "*", count: int = 1) -> None:
        """Wait until `count` matching requests have arrived."""
        while self.count(pattern) < count:
            self._changed.clear()
            await self._changed.wait()

    async def idle(self) -> None:
        """Wait until no answer is under way: a client that left was noticed."""
        while self.open_answers:
            self._changed.clear()
            await self._changed.wait()

    async def serve(self, request: web.Request) -> Content:
        """Return the true answer; a plain server has none."""
        del request
        return Content(404)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        recorded = RecordedRequest(request.method, request.path, dict(request.query), headers, request.remote)
        self.requests.append(recorded)
        self.open_answers += 1
        self._changed.set()
        try:
            return await self._answer(request, recorded)
        except ConnectionError:  # whoever asked has left
            return web.Response()
        finally:
            self.open_answers -= 1
            self._changed.set()

    async def _answer(self, request: Any, recorded: RecordedRequest) -> web.StreamResponse:
        fault = self.faults.take(recorded)
        if fault is None:
            content = await self.serve(request)
            return await self._send(request, content, Fault())
        if fault.hold is not None:
            self._held.append(fault.hold)
            if fault.hold_after is None:
                await fault.hold.wait()
        if fault.answer is not None:
            return await fault.answer(request)
        if fault.drop:
            return _drop(request, reset=fault.reset)
        return await self._send(request, await self._content(request, fault), fault)

    async def _content(self, request: web.Request, fault: Fault) -> Content:
        if fault.redirect is not None:
            content = Content(fault.status or 307, {"Location": fault.redirect})
        elif fault.status is not None or fault.body is not None:
            content = Content(fault.status or 200, {}, fault.body or b"")
        else:
            content = await self.serve(request)
        content.headers.update(fault.headers)
        if fault.content_type is not None:
            content.headers["Content-Type"] = fault.content_type
        if fault.flip is not None and content.body:
            damaged = bytearray(content.body)
            damaged[fault.flip % len(damaged)] ^= 1
            content.body = bytes(damaged)
        return content

    async def _send(self, request: web.Request, content: Content, fault: Fault) -> web.StreamResponse:
        response = web.StreamResponse(status=content.status, headers={**self.headers, **content.headers})
        if fault.chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(content.body) if fault.length is None else fault.length
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        await self._send_body(request, response, content.body, fault)
        return response

    async def _send_body(self, request: web.Request, response: web.StreamResponse, body: bytes, fault: Fault) -> None:
        end = len(body) if fault.cut_after is None else fault.cut_after
        sent = 0
        if fault.hold_after is not None and fault.hold is not None:
            await response.write(body[: fault.hold_after])
            sent = fault.hold_after
            await fault.hold.wait()
        if fault.drip is not None:
            size, pause = fault.drip
            while sent < end:
                await response.write(body[sent : min(sent + size, end)])
                sent += size
                await asyncio.sleep(pause)
        if sent < end:
            await response.write(body[sent:end])
        if fault.cut_after is not None and not fault.chunked:
            _drop(request, reset=fault.reset)
        elif fault.length is not None and fault.length > len(body):
            _drop(request, reset=False)
        else:
            await response.write_eof()


def _drop(request: web.Request, *, reset: bool) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        transport.abort() if reset else transport.close()
    return web.Response()


@dataclass
class Tokens:
    """Issues the tokens of a Bearer registry: `token-1`, `token-2`, …; `valid` ones are let in.

    `username` and `password` are asked for by the token service when set. `field_name` may be `access_token`.
    """

    username: str | None = None
    password: str | None = None
    expires_in: int | None = 300
    field_name: str = "token"
    issued: int = 0
    valid: set[str] = field(default_factory=set)
    scopes: list[Sequence[str]] = field(default_factory=list)

    def expire(self) -> None:
        """Let no token in that was issued so far."""
        self.valid.clear()

    def answer(self, request: web.Request) -> Content:
        """Return the token service's answer."""
        if self.username is not None and request.headers.get("Authorization") != basic(
            self.username, self.password or ""
        ):
            return Content(401)
        self.issued += 1
        token = f"token-{self.issued}"
        self.valid.add(token)
        self.scopes.append(request.query.getall("scope", []))
        document: dict[str, object] = {self.field_name: token}
        if self.expires_in is not None:
            document["expires_in"] = self.expires_in
        return Content(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def accepts(self, authorization: str | None) -> bool:
        """Tell whether a request with this Authorization is let in."""
        return authorization is not None and authorization.removeprefix("Bearer ") in self.valid


class FakeTokenServer(FakeServer):
    """A token service at a place of its own: `url` + `/token`."""

    def __init__(self, tokens: Tokens, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.tokens = tokens

    @property
    def realm(self) -> str:
        """The realm to name in a challenge."""
        return f"{self.url}/token"

    async def serve(self, request: web.Request) -> Content:
        """Answer every request with a token."""
        return self.tokens.answer(request)


@dataclass
class FakeRepository:
    """What one repository holds."""

    manifests: dict[Digest, tuple[bytes, str]] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)


class FakeRegistry(FakeServer):
    """A registry that pulls, pushes and mounts as the distribution specification says, until told otherwise.

    With `basic=(user, password)` it wants Basic credentials, with `tokens` a Bearer token, issued by itself at
    `/token` or wherever `realm` says.
    """

    def __init__(
        self,
        *,
        basic: tuple[str, str] | None = None,
        tokens: Tokens | None = None,
        realm: str | None = None,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(tls=tls, host=host)
        self.repositories: dict[str, FakeRepository] = {}
        self.basic = basic
        self.tokens = tokens
        self.realm = realm
        self.challenge: str | None = None
        """Sent instead of the usual WWW-Authenticate when set."""
        self.mounts = True
        """Whether a blob can be mounted."""
        self.upload_location: Callable[[str], str] = lambda path: path
        """Turns the path of an upload session into its Location."""
        self.upload_cuts: list[int] = []
        """Bytes after which the connection of the next PATCH breaks, one entry for each; the bytes are kept."""
        self.resumes = True
        """Whether it says where an upload session stands."""
        self.acknowledges_and_loses = False
        """Whether it throws blobs and manifests away that it says it took in."""
        self.deletes_tags = True
        self.lists_referrers = True
        self._uploads = 0
        self._sessions: dict[str, bytearray] = {}

    # What it holds

    def repository(self, name: str) -> FakeRepository:
        """Return a repository, creating it if need be."""
        return self.repositories.setdefault(name, FakeRepository())

    def add(self, repository: str, built: Built, tag: str | None = None) -> None:
        """Hold an image or index with everything below it, under `tag` if given."""
        held = self.repository(repository)
        for node in walk(built):
            held.manifests[node.digest] = (node.manifest, node.media_type)
            held.blobs.update(node.blobs)
        if tag is not None:
            held.tags[tag] = built.digest

    def add_image(
        self, repository: str, tag: str | None = None, layers: Sequence[bytes] = (b"layer",), **options: Any
    ) -> BuiltImage:
        """Build an image (see `build_image` for the options) and hold it."""
        image = build_image(layers, **options)
        self.add(repository, image, tag)
        return image

    def add_manifest(self, repository: str, content: bytes, media_type: str, tag: str | None = None) -> Digest:
        """Hold any bytes as a manifest."""
        held, digest = self.repository(repository), digest_of(content)
        held.manifests[digest] = (content, media_type)
        if tag is not None:
            held.tags[tag] = digest
        return digest

    def add_blob(self, repository: str, content: bytes) -> Digest:
        """Hold a blob."""
        digest = digest_of(content)
        self.repository(repository).blobs[digest] = content
        return digest

    # How it answers

    async def serve(self, request: web.Request) -> Content:
        """Answer truly."""
        if request.path == "/token" and self.tokens is not None and self.realm is None:
            return self.tokens.answer(request)
        refused = self._unauthorized(request)
        if refused is not None:
            return refused
        if request.path == "/v2/":
            return Content()
        answers = {"/manifests/": self._manifest, "/blobs/uploads": self._upload, "/blobs/": self._blob}
        for noun, answer in answers.items():
            name, found, rest = request.path.removeprefix("/v2/").partition(noun)
            if found:
                return await answer(request, name, rest)
        if "/referrers/" in request.path and self.lists_referrers:
            return Content(200, {"Content-Type": OCI_INDEX}, b'{"schemaVersion":2,"manifests":[]}')
        name, found, _ = request.path.removeprefix("/v2/").partition("/tags/list")
        return self._tags(name) if found else _error(404, "NAME_UNKNOWN")

    def _unauthorized(self, request: web.Request) -> Content | None:
        given = request.headers.get("Authorization")
        if self.basic is not None and given != basic(*self.basic):
            return _challenge(self.challenge or 'Basic realm="registry"')
        if self.tokens is not None and not self.tokens.accepts(given):
            return _challenge(self.challenge or self._bearer_challenge(request))
        return None

    def _bearer_challenge(self, request: web.Request) -> str:
        realm = self.realm or f"{self.url}/token"
        name = request.path.removeprefix("/v2/")
        for noun in ("/manifests/", "/blobs/"):
            name = name.partition(noun)[0]
        actions = "pull" if request.method in {"GET", "HEAD"} else "pull,push"
        scope = f',scope="repository:{name}:{actions}"' if name else ""
        return f'Bearer realm="{realm}",service="fake.registry"{scope}'

    async def _manifest(self, request: web.Request, name: str, reference: str) -> Content:
        if request.method == "PUT":
            return await self._put_manifest(request, name, reference)
        if request.method == "DELETE":
            return self._delete_manifest(name, reference)
        held = self.repositories.get(name)
        if held is None:
            return _error(404, "NAME_UNKNOWN")
        digest = Digest(reference) if is_digest(reference) else held.tags.get(reference)
        found = held.manifests.get(digest) if digest is not None else None
        if found is None or digest is None:
            return _error(404, "MANIFEST_UNKNOWN")
        content, media_type = found
        return Content(200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, content)

    async def _put_manifest(self, request: web.Request, name: str, reference: str) -> Content:
        content, held = await request.read(), self.repository(name)
        digest = digest_of(content, algorithm_of(Digest(reference)) if is_digest(reference) else "sha256")
        if is_digest(reference) and reference != digest:
            return _error(400, "DIGEST_INVALID")
        if not self.acknowledges_and_loses:
            held.manifests[digest] = (content, request.content_type)
            if not is_digest(reference):
                held.tags[reference] = digest
        return Content(201, {"Docker-Content-Digest": digest, "Location": f"/v2/{name}/manifests/{digest}"})

    def _delete_manifest(self, name: str, reference: str) -> Content:
        held = self.repository(name)
        if not is_digest(reference):
            if not self.deletes_tags:
                return _error(405, "UNSUPPORTED")
            return Content(202) if held.tags.pop(reference, None) else _error(404, "MANIFEST_UNKNOWN")
        if held.manifests.pop(Digest(reference), None) is None:
            return _error(404, "MANIFEST_UNKNOWN")
        held.tags = {tag: digest for tag, digest in held.tags.items() if digest != reference}
        return Content(202)

    async def _blob(self, request: web.Request, name: str, text: str) -> Content:
        held = self.repositories.get(name)
        content = held.blobs.get(Digest(text)) if held is not None else None
        if content is None:
            return _error(404, "BLOB_UNKNOWN")
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": text}
        wanted = request.headers.get("Range")
        if wanted is None:
            return Content(200, headers, content)
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        if start >= len(content):
            return Content(416, {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return Content(206, headers, content[start:])

    async def _upload(self, request: web.Request, name: str, rest: str) -> Content:
        held = self.repository(name)
        if request.method == "POST":
            return self._start_upload(request, name, held)
        session = self._sessions.setdefault(request.path, bytearray())
        if request.method in {"GET", "PATCH", "DELETE"}:
            return await self._continue_upload(request, session)
        sent = [chunk async for chunk in request.content.iter_any()]
        content, digest = bytes(session) + b"".join(sent), parse_digest(request.query["digest"])
        if digest_of(content, algorithm_of(digest)) != digest:
            return _error(400, "DIGEST_INVALID")
        if not self.acknowledges_and_loses:
            held.blobs[digest] = content
        return Content(201, {"Docker-Content-Digest": digest, "Location": f"/v2/{name}/blobs/{digest}"})

    async def _continue_upload(self, request: web.Request, session: bytearray) -> Content:
        if request.method == "DELETE":
            self._sessions.pop(request.path)
            return Content(204)
        if request.method == "GET":
            if not self.resumes:
                return _error(404, "BLOB_UPLOAD_UNKNOWN")
            return Content(204, self._position(request, session))
        start = int(request.headers["Content-Range"].partition("-")[0])
        if start != len(session):
            return _error(416, "BLOB_UPLOAD_INVALID")
        cut = self.upload_cuts.pop(0) if self.upload_cuts else None
        async for chunk in request.content.iter_any():
            session += chunk
            if cut is not None and len(session) - start >= cut:
                del session[start + cut :]
                _drop(request, reset=True)
                return Content(500)
        return Content(202, self._position(request, session))

    def _position(self, request: web.Request, session: bytearray) -> dict[str, str]:
        return {"Location": self.upload_location(request.path_qs), "Range": f"0-{max(0, len(session) - 1)}"}

    def _start_upload(self, request: web.Request, name: str, held: FakeRepository) -> Content:
        mount, source = request.query.get("mount"), self.repositories.get(request.query.get("from", ""))
        if mount is not None and self.mounts and source is not None and Digest(mount) in source.blobs:
            held.blobs[Digest(mount)] = source.blobs[Digest(mount)]
            return Content(201, {"Docker-Content-Digest": mount, "Location": f"/v2/{name}/blobs/{mount}"})
        self._uploads += 1
        return Content(202, {"Location": self.upload_location(f"/v2/{name}/blobs/uploads/{self._uploads}?state=a%2Fb")})

    def _tags(self, name: str) -> Content:
        if name not in self.repositories:
            return _error(404, "NAME_UNKNOWN")
        document = {"name": name, "tags": sorted(self.repositories[name].tags)}
        return Content(200, {"Content-Type": "application/json"}, json.dumps(document).encode())


def basic(username: str, password: str) -> str:
    """Return the Authorization value of Basic credentials."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _error(status: int, code: str) -> Content:
    document = {"errors": [{"code": code, "message": "as the specification says"}]}
    return Content(status, {"Content-Type": "application/json"}, json.dumps(document).encode())


def _challenge(value: str) -> Content:
    content = _error(401, "UNAUTHORIZED")
    content.headers["WWW-Authenticate"] = value
    return content
