"""Whose pulls a registry does not record, as it was set while it ran (ECR §13.3)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from replicator.core import texts
from replicator.core.errors import LimitExceeded, PullTimeExclusionExists, PullTimeExclusionNotFound
from replicator.core.pull_time_exclusions import PullTimeExclusion
from replicator.registry.run_time_documents import read_document

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.registry.run_time_documents import RunTimeDocuments
    from replicator.registry.settings import RegistrySettings

PULL_TIME_EXCLUSIONS = "pull-time-exclusions"


class RunTimePullTimes:
    """The exclusions of one node."""

    def __init__(self, documents: RunTimeDocuments) -> None:
        self._documents = documents
        documents.add(PULL_TIME_EXCLUSIONS, self._in_force)

    def exclusions(self) -> list[PullTimeExclusion]:
        """Return the exclusions, by ARN."""
        return sorted(self._documents.node.settings.pull_time_exclusions, key=lambda one: one.principal_arn)

    async def exclude(self, principal_arn: str) -> PullTimeExclusion:
        """Record no pulls of a principal from now on; raises PullTimeExclusionExists, LimitExceeded, StorageError."""
        excluded = PullTimeExclusion(principal_arn, self._documents.node.clock.now())
        limit = self._documents.node.settings.quotas.pull_time_exclusions

        def edit(content: str | None) -> str:
            before = _read(content)
            if any(one.principal_arn == principal_arn for one in before):
                raise PullTimeExclusionExists(texts.pull_time_exclusion_exists(principal_arn))
            if len(before) >= limit:
                raise LimitExceeded(texts.pull_time_exclusions_exceeded(limit))
            return _write((*before, excluded))

        await self._documents.change(PULL_TIME_EXCLUSIONS, edit)
        return excluded

    async def include(self, principal_arn: str) -> None:
        """Record the pulls of a principal again; raises PullTimeExclusionNotFound, StorageError."""

        def edit(content: str | None) -> str:
            before = _read(content)
            others = [one for one in before if one.principal_arn != principal_arn]
            if len(others) == len(before):
                raise PullTimeExclusionNotFound(texts.no_pull_time_exclusion(principal_arn))
            return _write(others)

        await self._documents.change(PULL_TIME_EXCLUSIONS, edit)

    def _in_force(self, settings: RegistrySettings, content: str | None) -> RegistrySettings:
        return replace(settings, pull_time_exclusions=_read(content))


def _write(exclusions: Iterable[PullTimeExclusion]) -> str:
    return json.dumps(
        {"exclusions": [{"principal_arn": one.principal_arn, "created_at": one.created_at} for one in exclusions]}
    )


def _read(content: str | None) -> tuple[PullTimeExclusion, ...]:
    return () if content is None else read_document(PULL_TIME_EXCLUSIONS, content, _exclusions)


def _exclusions(document: dict[str, Any]) -> tuple[PullTimeExclusion, ...]:
    return tuple(
        PullTimeExclusion(str(one["principal_arn"]), float(one["created_at"])) for one in document["exclusions"]
    )
