"""Previews of lifecycle policies: what a policy would do to a repository as it is, without doing it.

    start -> IN_PROGRESS -> COMPLETE -> EXPIRED, a day after the start
                         -> FAILED, when the policy cannot be read any more

A preview is stored before anything is evaluated, and evaluated in the background (`run`): the images are read as of one
moment, evaluated in pieces between which others get their turn, and the results stored some at a time. A process that
ends meanwhile leaves the preview IN_PROGRESS; the next one evaluates it anew. Nothing here changes an image.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import (
    InvalidLifecyclePolicy,
    LifecyclePreviewInProgress,
    LifecyclePreviewNotFound,
    StorageError,
)
from replicator.core.image_status import ImageStatus
from replicator.core.lifecycle import ActionType, LifecycleAction
from replicator.core.lifecycle_evaluation import evaluation
from replicator.core.lifecycle_grammar import parse_lifecycle_policy
from replicator.registry.events import record_dry_run
from replicator.registry.lifecycle_policies import find_repository, policy_of
from replicator.storage.metadata import lifecycle_previews, tags
from replicator.storage.metadata.lifecycle_previews import Preview, PreviewImage, PreviewStatus
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.digest import Digest
    from replicator.core.lifecycle import ImageSnapshot
    from replicator.core.names import RepositoryName, Tag
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps

_log = get_logger(__name__)

LIFETIME = 24 * 60 * 60
"""Seconds for which the results of a preview are shown (ECR says only that they go)."""
_READ_AT_ONCE = 1_000
_STORED_AT_ONCE = 500
_AT_ONCE = 100
_RETRY = 5.0
"""Seconds until a store that failed is asked again."""
_LOOK = 60.0
"""Seconds between two looks for what another process left."""
_ABANDONED = 15 * 60.0
"""Seconds after which a preview that another process started is taken for left behind."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which results are asked for: those of some images (`digest`, `tag`, either may be None), or a page of all."""

    images: tuple[tuple[Digest | None, Tag | None], ...] = ()
    tagged: bool | None = None
    after: int = -1
    size: int = 100


@dataclass(frozen=True, slots=True)
class PreviewPage:
    """A preview as it stands, with results; there may be more behind position `next_after`."""

    preview: Preview
    results: tuple[PreviewImage, ...] = ()
    next_after: int | None = None


class LifecyclePreviews:
    """The previews of one node. `run` belongs under a supervisor."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node
        self._started = asyncio.Event()
        self._mine: set[Preview] = set()
        self._has_looked = False

    async def start(self, repository: RepositoryName, text: str | None) -> Preview:
        """Start a preview of a policy, the repository's own by default, in place of the one that was there.

        Raises RepositoryNotFound, LifecyclePolicyNotFound, InvalidLifecyclePolicy, LifecyclePreviewInProgress or a
        StorageError; the former preview is still there then.
        """
        if text is not None:
            parse_lifecycle_policy(text, self._node.settings.quotas.lifecycle_rules)
        preview = await self._node.database.write(partial(self._start, repository, text, self._node.clock.now()))
        self._mine.add(preview)
        self._started.set()
        return preview

    def _start(self, repository: RepositoryName, text: str | None, now: float) -> Steps[Preview]:
        account = self._node.settings.node.account
        yield from find_repository(repository, account)
        if text is None:
            text = (yield from policy_of(repository, account)).text
        current = yield from lifecycle_previews.find(repository)
        if current is not None and current.status is PreviewStatus.IN_PROGRESS:
            raise LifecyclePreviewInProgress(texts.lifecycle_preview_in_progress(repository, account))
        preview = Preview(repository, text, PreviewStatus.IN_PROGRESS, now)
        yield from lifecycle_previews.put(preview)
        return preview

    async def get(self, repository: RepositoryName, wanted: Wanted) -> PreviewPage:
        """Return the preview with the results that are wanted; there are none unless it is COMPLETE.

        Raises RepositoryNotFound, LifecyclePreviewNotFound or a StorageError.
        """
        return await self._node.database.read(self._get(repository, wanted, self._node.clock.now()))

    def _get(self, repository: RepositoryName, wanted: Wanted, now: float) -> Steps[PreviewPage]:
        account = self._node.settings.node.account
        yield from find_repository(repository, account)
        preview = yield from lifecycle_previews.find(repository)
        if preview is None:
            raise LifecyclePreviewNotFound(texts.no_lifecycle_preview(repository, account))
        if preview.status is not PreviewStatus.COMPLETE:
            return PreviewPage(preview)
        if now - preview.started_at >= LIFETIME:
            return PreviewPage(replace(preview, status=PreviewStatus.EXPIRED))
        if wanted.images:
            return PreviewPage(preview, (yield from _results_of(repository, wanted)))
        found = yield from lifecycle_previews.results_after(
            repository, wanted.after, wanted.size + 1, tagged=wanted.tagged
        )
        page = tuple(found[: wanted.size])
        return PreviewPage(preview, page, page[-1].position if len(found) > wanted.size else None)

    # Evaluation

    async def run(self) -> None:
        """Evaluate previews as they are started, those first that a former process left, until cancelled."""
        while True:
            self._started.clear()
            try:
                done = await self.settle()
            except StorageError as error:
                node = str(self._node.settings.node)
                _log.warning("lifecycle policy previews could not be evaluated", node=node, error=str(error))
                await self._node.clock.sleep(_RETRY)
                continue
            if not done:
                await self._wait()

    async def _wait(self) -> None:
        """Return when a preview was started here, or it is time to look for those of other processes."""
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(self._started.wait()), group.create_task(self._node.clock.sleep(_LOOK))]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in waits:
                one.cancel()

    async def settle(self) -> int:
        """Evaluate the previews that are in progress; return how many there were. Raises StorageError."""
        running = await self._node.database.read(lifecycle_previews.running(_AT_ONCE))
        waiting = [preview for preview in running if self._is_due(preview)]
        for preview in waiting:
            await self._evaluate(preview)
            self._mine.discard(preview)
        self._has_looked = True
        return len(waiting)

    def _is_due(self, preview: Preview) -> bool:
        """Tell whether a preview is ours to evaluate: started here, or left; at first, all that there are."""
        if not self._has_looked or preview in self._mine:
            return True
        return self._node.clock.now() - preview.started_at > _ABANDONED

    async def _evaluate(self, preview: Preview) -> None:
        try:
            policy = parse_lifecycle_policy(preview.policy, max_rules=None)
        except InvalidLifecyclePolicy as error:
            _log.error(
                "a lifecycle policy preview cannot be evaluated", repository=preview.repository, error=str(error)
            )
            await self._finish(replace(preview, status=PreviewStatus.FAILED))
            return
        images = await self._node.database.read(_snapshots(preview.repository))
        pieces = evaluation(policy, images, preview.started_at)
        actions: list[LifecycleAction] = []
        while True:
            try:
                next(pieces)
            except StopIteration as done:
                actions = done.value
                break
            await asyncio.sleep(0)
        await self._store(preview, actions)

    async def _store(self, preview: Preview, actions: Sequence[LifecycleAction]) -> None:
        await self._node.database.write(partial(lifecycle_previews.clear, preview.repository))
        for start in range(0, len(actions) or 1, _STORED_AT_ONCE):
            some = actions[start : start + _STORED_AT_ONCE]
            if not await self._node.database.write(partial(self._add, preview, start, some)):
                return
            self._node.announce_events()
        expiring = sum(one.rule.action is ActionType.EXPIRE for one in actions)
        await self._finish(
            replace(preview, status=PreviewStatus.COMPLETE, expiring=expiring, transitioning=len(actions) - expiring)
        )

    def _add(self, preview: Preview, start: int, actions: Sequence[LifecycleAction]) -> Steps[bool]:
        """Store and tell results, unless the preview went with its repository; return whether it is there."""
        current = yield from lifecycle_previews.find(preview.repository)
        if current != preview:
            return False
        results = [_result(start + offset, one) for offset, one in enumerate(actions)]
        yield from lifecycle_previews.add(preview.repository, results)
        now = self._node.clock.now()
        yield from record_dry_run(self._node, preview.repository, preview.policy, preview.started_at, actions, now)
        return True

    async def _finish(self, preview: Preview) -> None:
        await self._node.database.write(partial(lifecycle_previews.finish, preview))


def _snapshots(repository: RepositoryName) -> Steps[list[ImageSnapshot]]:
    """Return all images of a repository as of one moment."""
    found: list[ImageSnapshot] = []
    while True:
        page = yield from lifecycle_previews.snapshots_after(
            repository, found[-1].digest if found else "", _READ_AT_ONCE
        )
        found += page
        if len(page) < _READ_AT_ONCE:
            return found


def _result(position: int, action: LifecycleAction) -> PreviewImage:
    image = action.image
    return PreviewImage(
        position,
        image.digest,
        image.tags,
        image.pushed_at,
        action.rule.action.value.upper(),
        "ARCHIVE" if action.rule.action is ActionType.TRANSITION else None,
        action.rule.priority,
        "ARCHIVE" if image.status is ImageStatus.ARCHIVED else "STANDARD",
    )


def _results_of(repository: RepositoryName, wanted: Wanted) -> Steps[tuple[PreviewImage, ...]]:
    """Return the results of the images that are asked for by digest or tag, each once, in order."""
    found: dict[int, PreviewImage] = {}
    for digest, tag in wanted.images:
        named = digest if tag is None else (yield from _digest_of(repository, tag))
        if named is None or digest not in {None, named}:
            continue
        result = yield from lifecycle_previews.find_result(repository, named)
        if result is not None and wanted.tagged in {None, bool(result.tags)}:
            found[result.position] = result
    return tuple(found[position] for position in sorted(found))


def _digest_of(repository: RepositoryName, tag: Tag) -> Steps[Digest | None]:
    register = yield from tags.find(repository, tag)
    return None if register is None else register.digest
