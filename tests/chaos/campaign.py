"""The campaign: lives of a node, each with a thousand pulls by a dozen clients, and upstreams that misbehave meanwhile.

    life 1, roomy     life 2, tight     life 3, roomy    ...    the calm
    nothing is given  evictions and     over the same           no faults: every image
    up                purges            directory               comes, as it is upstream now

A node is stopped while clients are pulling. After each life the process has as many tasks and file descriptors as
before the first one, and the ingest directory is empty.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import traceback
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.chance import chance
from tests.chaos.hurried_clock import HurriedClock
from tests.chaos.node import document, served
from tests.chaos.oracle import Oracle, deadline_of
from tests.chaos.pulls import Kind, Pull, carry_out, choose
from tests.chaos.upstream import Cdn, ChaoticRegistry
from tests.chaos.world import HUB, QUAY, World
from tests.support.wire_client import WireClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from random import Random

    from tests.chaos.node import Served

CLIENTS = 12
PULLS_PER_LIFE = 1000
MAX_VIOLATIONS = 20
_EVENT_EVERY = 25
_OUTAGE = 20
"""Pulls that an upstream is gone for."""
_WEATHER = (0.05, 0.2, 0.5)
_SETTLE = 10.0
"""Seconds after which whatever belongs to a node that has stopped must be gone."""
_HEAL = 20.0
"""Seconds of calm after which everything must be as it is upstream."""


@dataclass
class Report:
    """What came of a campaign."""

    seed: int
    pulls: int = 0
    seconds: float = 0.0
    lives: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    downloads: int = 0
    blobs: int = 0
    slowest_hit: float = 0.0
    slowest: float = 0.0
    violations: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        rate = self.pulls / max(self.seconds, 0.001)
        yield f"{self.pulls} pulls in {self.seconds:.1f} s ({rate:.0f}/s), {self.lives} lives of the node"
        yield f"slowest answer {self.slowest:.2f} s, slowest of what was here {self.slowest_hit:.2f} s"
        yield f"{self.downloads} downloads of {self.blobs} blobs"
        for name, counted in (("answers", self.answers), ("faults", self.faults), ("events", self.events)):
            yield f"{name} ({counted.total()}):"
            yield from (f"  {count:6} {kind}" for kind, count in sorted(counted.items()))
        yield from self.violations
        again = f"make chaos-cache SEED={self.seed} PULLS={self.pulls}"
        yield f"{len(self.violations)} violations; {again} tries this schedule again"


async def run(root: Path, pulls: int, seed: int, say: Callable[[str], None] = lambda _: None) -> Report:
    """Run a campaign in a directory and return its report."""
    faults, log = _Faults(), logging.getLogger("replicator")
    level = log.level
    log.addHandler(faults)
    log.setLevel(logging.WARNING)
    try:
        report = await _Campaign(root, pulls, seed, say, faults).run()
    finally:
        log.removeHandler(faults)
        log.setLevel(level)
    report.violations += [f"reported by the node: {fault}" for fault in faults.found]
    return report


class _Faults(logging.Handler):
    """Collects what the daemon reports as faults of its own, and why it could not serve requests, by their ids."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []
        self.reasons: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text = str(record.msg)
        if record.levelno < logging.ERROR:
            if isinstance(record.msg, dict) and "request_id" in record.msg:
                self.reasons[record.msg["request_id"]] = text
            return
        if record.exc_info and record.exc_info[1] is not None:
            text += "\n" + "".join(traceback.format_exception(record.exc_info[1]))
        self.found.append(text)


class _Campaign:
    def __init__(self, root: Path, pulls: int, seed: int, say: Callable[[str], None], faults: _Faults) -> None:
        self.report = Report(seed)
        self._root = root
        self._pulls = pulls
        self._seed = seed
        self._say = say
        self._faults = faults
        self._clock = HurriedClock()
        self._world = World(chance(seed, "world"))
        self._cdns = {name: Cdn() for name in (HUB, "mirror", QUAY)}
        self._registries = {
            name: ChaoticRegistry(
                self._world, HUB if name == "mirror" else name, str(seed), self._clock, self._cdns[name]
            )
            for name in (HUB, "mirror", QUAY)
        }
        self._oracle = Oracle()
        self._next = 0
        self._is_stopping = False
        self._gone: dict[str, int] = {}
        self._moving = asyncio.Lock()
        self._heads: Counter[str] = Counter()

    async def run(self) -> Report:
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            for server in (*self._registries.values(), *self._cdns.values()):
                await stack.enter_async_context(server)
            baseline = _Resources.now()
            while self._next < self._pulls and len(self.report.violations) < MAX_VIOLATIONS:
                await self._live(tight=self.report.lives % 2 == 1)
                await self._check_resources(baseline)
                self._say(f"{self._next} of {self._pulls} pulls, {len(self.report.violations)} violations")
            await self._calm()
            await self._check_resources(baseline)
        report = self.report
        report.seconds, report.pulls = time.monotonic() - began, self._next
        report.answers, report.slowest_hit = self._oracle.answers, self._oracle.slowest_hit
        for registry in self._registries.values():
            report.faults.update(registry.chance.met)
        for name, cdn in self._cdns.items():
            if cdn.authorizations():
                self._violation(f"credentials of {name} were sent to another host")
        report.blobs = len({digest for known in self._world.known for digest in known.blobs})
        return report

    # One life of the node

    async def _live(self, *, tight: bool) -> None:
        self.report.lives += 1
        self._oracle.keeps, self._is_stopping = not tight, False
        if tight:
            self._oracle.forget()
        end = min(self._next + PULLS_PER_LIFE, self._pulls)
        nearly_done = asyncio.Event()
        before = self._counted()
        async with asyncio.TaskGroup() as clients, self._node(self._world.size // 3 if tight else None) as node:
            for _ in range(CLIENTS):
                clients.create_task(self._client(node, end, nearly_done, tight=tight))
            await nearly_done.wait()
            self._is_stopping = True
        await self._return_some(sys.maxsize)
        if not tight:
            self._check_downloads(before)
        self.report.downloads += sum((self._counted()[0] - before[0]).values())
        if node.ingests:
            self._violation(f"left in the ingest directory: {node.ingests}")

    def _node(self, max_size: int | None) -> AbstractAsyncContextManager[Served]:
        urls = {name: registry.url for name, registry in self._registries.items()}
        return served(self._root, self._clock, document(self._root / "data", urls, max_size))

    async def _client(self, node: Served, end: int, nearly_done: asyncio.Event, *, tight: bool) -> None:
        while self._next < end and len(self.report.violations) < MAX_VIOLATIONS:
            number = self._next
            self._next += 1
            if number >= end - CLIENTS // 2:
                nearly_done.set()
            random = chance(self._seed, "pull", number)
            if number % _EVENT_EVERY == 0:
                await self._event(node, random, number, tight=tight)
            await self._return_some(number)
            await self._pull(choose(self._world, random, number), node)
        nearly_done.set()

    async def _pull(self, pull: Pull, node: Served) -> None:
        loop, is_held = asyncio.get_running_loop(), self._oracle.holds(pull)
        if pull.method == "HEAD":
            self._heads[pull.upstream_path] += 1
        try:
            async with asyncio.timeout(deadline_of(pull)):
                got = await carry_out(pull, node.port)
        except TimeoutError:
            self._violation(f"{pull}: no answer within {deadline_of(pull):.0f} s")
        except ConnectionError as error:
            if self._is_stopping:
                self._oracle.answers["the node stopped"] += 1
            else:
                self._violation(f"{pull}: {error}")
        else:
            self.report.slowest = max(self.report.slowest, got.seconds)
            absent_at = self._registries[pull.known.upstream].absent.get(pull.upstream_path)
            for wrong in self._oracle.judge(pull, got, absent_at, loop.time(), is_held=is_held):
                request = "" if got.answer is None else got.answer.headers.get("X-Request-Id", "")
                self._violation(f"{wrong} {self._faults.reasons.get(request, '')}")

    def _violation(self, text: str) -> None:
        self.report.violations.append(text)
        self._say(text)

    # What happens meanwhile

    async def _event(self, node: Served, random: Random, number: int, *, tight: bool) -> None:
        intensity = random.choice(_WEATHER)
        for registry in self._registries.values():
            registry.chance.intensity = intensity
        event = random.random()
        if event < 0.5:
            self.report.events[self._world.move_tag(random)] += 1
        elif event < 0.65:
            await self._take_away(random.choice(sorted(self._registries)), number)
        elif tight:
            await self._purge(node, random)

    async def _take_away(self, name: str, number: int) -> None:
        async with self._moving:
            if name not in self._gone:
                self._gone[name] = number + _OUTAGE
                self.report.events[f"{name} is gone"] += 1
                await self._registries[name].go()

    async def _return_some(self, number: int) -> None:
        """Let those upstreams come back that were gone for long enough."""
        if all(number < until for until in self._gone.values()):
            return
        async with self._moving:
            for name in [name for name, until in self._gone.items() if number >= until]:
                del self._gone[name]
                await self._registries[name].come_back()

    async def _purge(self, node: Served, random: Random) -> None:
        known = random.choice(self._world.known)
        self.report.events["repository purged"] += 1
        async with WireClient(node.port) as client:
            body = f'{{"repository": "{known.local}"}}'.encode()
            answer = await client.send(
                "POST", "/_replicator/v1/cache/purge", body=body, headers={"Content-Type": "application/json"}
            )
        if answer.status not in {200, 404}:
            self._violation(f"purge of {known.local}: {answer!r}")

    # What must hold after a life

    def _counted(self) -> tuple[Counter[str], Counter[str]]:
        """Return how often each blob was sent, and how often it could not be helped that it was sent again."""
        served_, excused = Counter[str](), Counter[str](self._heads)
        for name, registry in self._registries.items():
            upstream = HUB if name == "mirror" else name
            served_.update({f"{upstream} {path}": count for path, count in registry.served.items()})
            excused.update({f"{upstream} {path}": count for path, count in registry.chance.by_path.items()})
        return served_, excused

    def _check_downloads(self, before: tuple[Counter[str], Counter[str]]) -> None:
        (sent, excused), (sent_before, excused_before) = self._counted(), before
        for path, count in (sent - sent_before).items():
            heads = self._heads[path.partition(" ")[2]]
            most = 2 + excused[path] - excused_before[path] + heads
            if count > most:
                self._violation(f"{path} was downloaded {count} times, at most {most} were needed")

    async def _check_resources(self, baseline: _Resources) -> None:
        """Compare what the process holds with what it held before; what is being closed gets a moment."""
        deadline = time.monotonic() + _SETTLE
        while (found := _Resources.now()).exceeds(baseline) and time.monotonic() < deadline:  # noqa: ASYNC110 - below
            await asyncio.sleep(0.05)  # sockets that the other side has yet to notice: there is nothing to wait on
        if found.exceeds(baseline):
            self._violation(f"left behind: {found} instead of {baseline}")

    # The end

    async def _calm(self) -> None:
        """Serve once more without faults: every image must come whole, and every tag be what it is upstream."""
        self._is_stopping, self._oracle.keeps = False, False
        self._oracle.forget()
        for registry in self._registries.values():
            registry.chance.intensity = 0.0
        async with self._node(None) as node:
            for known in self._world.known:
                for tag, digest in sorted(self._world.current(known).items()):
                    await self._expect(node, Pull(self._next, Kind.TAG, known, tag), digest)
                for manifest in known.manifests:
                    await self._expect(node, Pull(self._next, Kind.DIGEST, known, manifest), manifest)
                for blob in known.blobs:
                    await self._expect(node, Pull(self._next, Kind.BLOB, known, blob), blob)

    async def _expect(self, node: Served, pull: Pull, digest: str) -> None:
        deadline = time.monotonic() + _HEAL
        while time.monotonic() < deadline and len(self.report.violations) < MAX_VIOLATIONS:
            await self._pull(pull, node)
            head = await carry_out(Pull(pull.number, pull.kind, pull.known, pull.reference, "HEAD"), node.port)
            if head.answer is not None and head.answer.headers.get("Docker-Content-Digest") == digest:
                return
            await self._clock.sleep(10)  # until a window, a pause or a breaker has passed
        self._violation(f"{pull}: not healed after {_HEAL:g} s of calm")


@dataclass(frozen=True)
class _Resources:
    """What the process holds."""

    descriptors: int
    tasks: int

    @classmethod
    def now(cls) -> _Resources:
        return cls(len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks()))

    def exceeds(self, other: _Resources) -> bool:
        return self.descriptors > other.descriptors or self.tasks > other.tasks
