"""Syncs over HTTP: what destinations lack and why, and having it brought there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.actions import Action
from replicator.core.errors import InvalidInput
from replicator.registry_api.operator_input import body_fields
from replicator.registry_api.operator_request import Asked, Pages, answer
from replicator.registry_api.replication_json import backfill_json, plan_json, unreachable_json
from replicator.replication.sync_request import SyncScope
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from aiohttp import web

    from replicator.replication.backfill import Backfills
    from replicator.replication.sync_request import SyncRequests

_log = get_logger(__name__)


class SyncPages:
    """Serves the syncs of one node. A plan costs the destinations work, so one of everything needs a right to all."""

    def __init__(self, requests: SyncRequests, backfills: Backfills) -> None:
        self._requests = requests
        self._backfills = backfills

    @property
    def pages(self) -> Pages:
        """What answers which path."""
        return {"sync": {"POST": self._sync}}

    async def _sync(self, asked: Asked) -> web.Response:
        fields = await body_fields(asked.request, "repository", "reference", "destination", "dry_run")
        scope = SyncScope(fields.find_repository(), fields.find_reference(), fields.find_destination())
        if scope.reference is not None and scope.repository is None:
            raise InvalidInput("expected a repository with the reference")
        is_dry = fields.flag("dry_run")
        asked.authorize(Action.COMPARE_REGISTRIES if is_dry else Action.SYNC_REGISTRIES, scope.repository)
        if is_dry:
            return answer(plan_json(await self._requests.plan(scope)))
        backfill_id, plan = await self._requests.start(scope)
        _log.info(
            "sync started by an operator",
            principal=asked.principal.name,
            backfill=backfill_id,
            repository=scope.repository,
            destination=None if scope.destination is None else str(scope.destination),
            count=len(plan.items),
        )
        started = backfill_json(await self._backfills.get(backfill_id))
        return answer({**started, "unreachable": unreachable_json(plan)}, 202)
