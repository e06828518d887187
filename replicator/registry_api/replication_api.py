"""What operators and pipelines ask of replication: wait for an image, see where it is, try again, see conflicts.

Only users may ask. Somebody who may pull from a repository sees how its images are replicated; somebody who may push
to it may have them replicated. What concerns all repositories needs the permission for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.core.actions import Action
from replicator.core.principal import PrincipalKind
from replicator.core.reference import as_tag
from replicator.registry_api.backfill_pages import BackfillPages
from replicator.registry_api.long_polls import LongPolls
from replicator.registry_api.operations import REPLICATION_PREFIX
from replicator.registry_api.operator_api import OperatorApi
from replicator.registry_api.operator_input import body_fields, query_fields
from replicator.registry_api.operator_request import Asked, answer
from replicator.registry_api.replication_json import conflict_json, destination_json, status_json, wait_json
from replicator.registry_api.sync_pages import SyncPages
from replicator.replication.status import summarise
from replicator.replication.wait import Wanted
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from aiohttp import web

    from replicator.core.clock import Clock
    from replicator.core.rate_limit import RateLimit
    from replicator.registry_api.authentication import Authenticator
    from replicator.replication.backfill import Backfills
    from replicator.replication.conflicts import ConflictReader
    from replicator.replication.retries import Retries
    from replicator.replication.status import ReplicationStatusReader
    from replicator.replication.sync_request import SyncRequests
    from replicator.replication.wait import ReplicationWaiter
    from replicator.telemetry.requests import Observer

_log = get_logger(__name__)

DEFAULT_WAIT = 60.0
MAX_WAIT = 3600.0
MAX_CONFLICTS = 1000


@dataclass(frozen=True, slots=True)
class ReplicationUseCases:
    """What the API serves."""

    waiter: ReplicationWaiter
    status: ReplicationStatusReader
    conflicts: ConflictReader
    retries: Retries
    backfills: Backfills
    syncs: SyncRequests


class ReplicationApi(OperatorApi):
    """Serves `/_replicator/v1/replication/` of one node."""

    def __init__(
        self,
        use_cases: ReplicationUseCases,
        authenticator: Authenticator,
        clock: Clock,
        observe: Observer,
        rate_limit: RateLimit | None = None,
    ) -> None:
        super().__init__("replication", REPLICATION_PREFIX, authenticator, clock, observe, rate_limit)
        self._use_cases = use_cases
        self._polls = LongPolls(clock)
        self.pages = {
            "wait": {"POST": self._wait},
            "images": {"GET": self._images},
            "retry": {"POST": self._retry},
            "conflicts": {"GET": self._conflicts},
            **BackfillPages(use_cases.backfills).pages,
            **SyncPages(use_cases.syncs, use_cases.backfills).pages,
        }

    async def _wait(self, asked: Asked) -> web.Response:
        fields = await body_fields(
            asked.request, "repository", "reference", "digest", "destinations", "regions", "timeout", "until_failed"
        )
        repository, reference = fields.repository(), fields.reference()
        asked.authorize(Action.DESCRIBE_IMAGE_REPLICATION_STATUS, repository)
        wanted = Wanted(fields.destinations(), fields.regions())
        seconds = fields.seconds("timeout", DEFAULT_WAIT, MAX_WAIT)
        pinned, until_failed = fields.find_digest(), fields.flag("until_failed")
        wait = partial(self._use_cases.waiter.wait, pinned=pinned, until_failed=until_failed)
        is_user = asked.principal.kind is PrincipalKind.USER
        caller = asked.principal.name if is_user else f"@{asked.request.remote}"
        work = partial(wait, repository, reference, wanted, seconds)
        return answer(wait_json(await self._polls.run(asked.request, caller, work)))

    async def _images(self, asked: Asked) -> web.Response:
        fields = query_fields(asked.request, "repository", "reference")
        repository, reference = fields.repository(), fields.reference()
        asked.authorize(Action.DESCRIBE_IMAGE_REPLICATION_STATUS, repository)
        found = await self._use_cases.status.of_image(repository, reference)
        digest = found[0].digest if found else None
        statuses = [status_json(one) for one in found]
        whole = [destination_json(one) for one in summarise(found, as_tag(reference))]
        return answer({"repository": repository, "digest": digest, "destinations": whole, "statuses": statuses})

    async def _retry(self, asked: Asked) -> web.Response:
        fields = await body_fields(asked.request, "repository", "destination")
        repository, destination = fields.find_repository(), fields.find_destination()
        asked.authorize(Action.REPLICATE_AGAIN, repository)
        count = await self._use_cases.retries.retry(destination, repository)
        _log.info(
            "replication retried by an operator",
            principal=asked.principal.name,
            repository=repository,
            destination=None if destination is None else str(destination),
            count=count,
        )
        return answer({"jobs": count})

    async def _conflicts(self, asked: Asked) -> web.Response:
        limit = query_fields(asked.request, "limit").number("limit", 20, MAX_CONFLICTS)
        found = await self._use_cases.conflicts.latest(asked.may_pull, limit)
        return answer({"conflicts": [conflict_json(one) for one in found]})
