"""Backfills over HTTP: start one, list them, follow one, see its results, stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.actions import Action
from replicator.core.errors import BackfillNotFound
from replicator.registry_api.operator_input import body_fields, query_fields
from replicator.registry_api.operator_request import Asked, Pages, answer
from replicator.registry_api.replication_json import backfill_image_json, backfill_json
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from aiohttp import web

    from replicator.replication.backfill import Backfills
    from replicator.replication.backfill_view import Backfill

_log = get_logger(__name__)

PAGE = 100
MAX_PAGE = 1000
_MAX_ID = 100


class BackfillPages:
    """Serves the backfills of one node. A user sees those of repositories it may pull from, and those of all."""

    def __init__(self, backfills: Backfills) -> None:
        self._backfills = backfills

    @property
    def pages(self) -> Pages:
        """What answers which path."""
        return {
            "backfills": {"GET": self._list, "POST": self._start},
            "backfills/{id}": {"GET": self._get, "DELETE": self._stop},
            "backfills/{id}/images": {"GET": self._images},
        }

    async def _start(self, asked: Asked) -> web.Response:
        fields = await body_fields(asked.request, "repository", "destination")
        repository, destination = fields.find_repository(), fields.destination()
        asked.authorize(Action.START_BACKFILL, repository)
        backfill_id = await self._backfills.start(destination, repository)
        _log.info(
            "backfill started by an operator",
            principal=asked.principal.name,
            backfill=backfill_id,
            destination=str(destination),
            repository=repository,
        )
        return answer(backfill_json(await self._backfills.get(backfill_id)), 202)

    async def _list(self, asked: Asked) -> web.Response:
        fields = query_fields(asked.request, "limit", "after")
        size, after = fields.number("limit", PAGE, MAX_PAGE), fields.position("after")
        page = await self._backfills.list(size, after or None)
        seen = [backfill_json(one) for one in page.backfills if _may_see(asked, one)]
        return answer({"backfills": seen, "next_after": page.next_after})

    async def _get(self, asked: Asked) -> web.Response:
        query_fields(asked.request)
        return answer(backfill_json(await self._find(asked)))

    async def _images(self, asked: Asked) -> web.Response:
        fields = query_fields(asked.request, "limit", "after", "status")
        size, after = fields.number("limit", PAGE, MAX_PAGE), fields.position("after")
        backfill = await self._find(asked)
        page = await self._backfills.images(backfill.id, fields.find_status(), size, after or None)
        images = [backfill_image_json(one) for one in page.images if asked.may_pull(one.repository)]
        return answer({"images": images, "next_after": page.next_after})

    async def _stop(self, asked: Asked) -> web.Response:
        backfill = await self._find(asked)
        asked.authorize(Action.START_BACKFILL, backfill.repository)
        stopped = await self._backfills.stop(backfill.id)
        _log.info("backfill stopped by an operator", principal=asked.principal.name, backfill=backfill.id)
        return answer(backfill_json(stopped), 202)

    async def _find(self, asked: Asked) -> Backfill:
        """Return the backfill of the path; one that the caller may not know of is not there."""
        if len(asked.id) > _MAX_ID:
            raise BackfillNotFound
        backfill = await self._backfills.get(asked.id)
        if not _may_see(asked, backfill):
            raise BackfillNotFound
        return backfill


def _may_see(asked: Asked, backfill: Backfill) -> bool:
    return backfill.repository is None or asked.may_pull(backfill.repository)
