"""What operators ask of the cache: what is there and why, check it now, fetch, pin and purge it, how upstreams are.

Only users may ask. Who may pull from a repository sees what is cached of it; who may push to it may have it checked,
fetched and pinned; who may delete from it may purge it. What concerns all repositories needs the right for all of
them. An image is given as `image`, by any name that it has, or as `repository` and `reference`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from replicator.cache.image_lookup import LocalImage
from replicator.core.actions import Action
from replicator.core.errors import InvalidInput
from replicator.core.principal import PrincipalKind
from replicator.core.reference import as_tag
from replicator.registry_api import cache_json
from replicator.registry_api.long_polls import LongPolls
from replicator.registry_api.operations import CACHE_PREFIX
from replicator.registry_api.operator_api import OperatorApi
from replicator.registry_api.operator_input import body_fields, query_fields
from replicator.registry_api.operator_request import Asked, answer
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from replicator.cache.explain import Explainer
    from replicator.cache.inventory import Inventory
    from replicator.cache.refreshes import Refreshes
    from replicator.cache.space import CacheSpace
    from replicator.cache.warm_images import Warmer, Warming
    from replicator.core.clock import Clock
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.rate_limit import RateLimit
    from replicator.core.reference import Reference
    from replicator.registry_api.authentication import Authenticator
    from replicator.registry_api.operator_input import Fields
    from replicator.telemetry.requests import Observer
    from replicator.upstream.client import UpstreamClient

_log = get_logger(__name__)

PAGE = 100
MAX_PAGE = 500
_LOOK_EVERY = 0.5
"""Seconds between two looks at an image on its way."""
_MOST_LOOKS = 20
"""Looks after which a line is written although nothing has changed, so that the client knows that we are there."""


@dataclass(frozen=True, slots=True)
class CacheUseCases:
    """What the API serves. `clients` are the registries that the cache asks, peers too.

    `forget` has an upstream asked again for what it did not have a moment ago.
    """

    inventory: Inventory
    explainer: Explainer
    refreshes: Refreshes
    warmer: Warmer
    space: CacheSpace
    clients: Sequence[UpstreamClient]
    forget: Callable[[RepositoryName, Reference | None], None]


class CacheApi(OperatorApi):
    """Serves `/_replicator/v1/cache/` of one node. Names that begin with the host of `public_url` are this node's."""

    def __init__(
        self,
        use_cases: CacheUseCases,
        authenticator: Authenticator,
        clock: Clock,
        observe: Observer,
        rate_limit: RateLimit | None = None,
        public_url: str | None = None,
    ) -> None:
        super().__init__("cache", CACHE_PREFIX, authenticator, clock, observe, rate_limit, public_url)
        self._cases = use_cases
        self._polls = LongPolls(clock)
        self._host = urlsplit(public_url).netloc.lower() if public_url else ""
        self.pages = {
            "images": {"GET": self._images},
            "explain": {"GET": self._explain},
            "refresh": {"POST": self._refresh},
            "purge": {"POST": self._purge},
            "pin": {"POST": self._pin},
            "unpin": {"POST": self._unpin},
            "warm": {"POST": self._warm},
            "upstreams": {"GET": self._upstreams},
            "space": {"GET": self._space},
        }

    async def _images(self, asked: Asked) -> web.StreamResponse:
        fields = query_fields(asked.request, "repository", "prefix", "limit", "after")
        size, after = fields.number("limit", PAGE, MAX_PAGE), _position(fields)
        repository, inventory = fields.find_repository(), self._cases.inventory
        if repository is None:
            page = await inventory.of_prefix(fields.prefix(), after, size, asked.may_pull)
        else:
            asked.authorize(Action.DESCRIBE_CACHE, repository)
            page = await inventory.of_repository(repository, after, size)
        now = self._clock.now()
        found = [cache_json.image_json(one, now) for one in page.images]
        after_text = None if page.next_after is None else " ".join(page.next_after)
        return answer({"now": now, "images": found, "next_after": after_text})

    async def _explain(self, asked: Asked) -> web.StreamResponse:
        fields = query_fields(asked.request, "image")
        name = fields.find_image()
        if name is None:
            raise InvalidInput("expected image as text")
        found = await self._cases.explainer.explain(name, self._own_hosts(asked))
        if found.image is not None:
            asked.authorize(Action.DESCRIBE_CACHE, found.image.repository)
        return answer(cache_json.explanation_json(found, self._clock.now()))

    async def _refresh(self, asked: Asked) -> web.StreamResponse:
        fields = await body_fields(asked.request, "image", "repository", "tag")
        repository, tag = await self._tag_of(asked, fields)
        asked.authorize(Action.FILL_CACHE, repository)
        work = partial(self._cases.refreshes.refresh, repository, tag)
        found = await self._polls.run(asked.request, _caller(asked), work)
        _log.info(
            "cached tags checked by an operator",
            principal=asked.principal.name,
            repository=repository,
            tag=tag,
            count=len(found),
        )
        return answer({"repository": repository, "tags": [cache_json.refresh_json(one) for one in found]})

    async def _purge(self, asked: Asked) -> web.StreamResponse:
        fields = await body_fields(asked.request, "image", "repository", "reference", "force")
        repository, reference = await self._image_of(asked, fields)
        for action in (Action.PURGE_CACHE, Action.BATCH_DELETE_IMAGE):
            asked.authorize(action, repository)  # whoever may not delete images may not purge them either
        purged = await self._cases.space.purge(repository, reference, force=fields.flag("force"))
        self._cases.forget(repository, reference)
        _log.info(
            "cached images purged by an operator",
            principal=asked.principal.name,
            repository=repository,
            reference=reference,
            images=purged.images,
            freed=purged.freed,
        )
        return answer({"repository": repository, **cache_json.purged_json(purged)})

    async def _pin(self, asked: Asked) -> web.StreamResponse:
        return await self._set_pin(asked, pinned=True)

    async def _unpin(self, asked: Asked) -> web.StreamResponse:
        return await self._set_pin(asked, pinned=False)

    async def _set_pin(self, asked: Asked, *, pinned: bool) -> web.StreamResponse:
        fields = await body_fields(asked.request, "image", "repository", "reference")
        image = await self._one_image(asked, fields)
        asked.authorize(Action.PIN_IMAGE, image.repository)
        if pinned:
            await self._cases.space.pin(image.repository, image.reference)
        else:
            await self._cases.space.unpin(image.repository, image.reference)
        _log.info(
            "cached image pinned by an operator" if pinned else "cached image unpinned by an operator",
            principal=asked.principal.name,
            repository=image.repository,
            reference=image.reference,
        )
        found = await self._cases.explainer.explain_image(image.reference, image)
        return answer(
            {
                "repository": image.repository,
                "reference": image.reference,
                "pinned": pinned,
                "cached": found.cached is not None,
            }
        )

    async def _warm(self, asked: Asked) -> web.StreamResponse:
        fields = await body_fields(asked.request, "image", "repository", "reference", "platforms")
        image, platforms = await self._one_image(asked, fields), fields.find_platforms()
        asked.authorize(Action.FILL_CACHE, image.repository)
        warming = self._cases.warmer.start(image.repository, image.reference, platforms)
        return await _follow(asked.request, warming)

    async def _upstreams(self, asked: Asked) -> web.StreamResponse:
        query_fields(asked.request)
        asked.authorize(Action.DESCRIBE_CACHE, None)
        return answer({"upstreams": [cache_json.whole_upstream_json(client) for client in self._cases.clients]})

    async def _space(self, asked: Asked) -> web.StreamResponse:
        query_fields(asked.request)
        asked.authorize(Action.DESCRIBE_CACHE, None)
        return answer(cache_json.space_json(await self._cases.space.usage()))

    async def _tag_of(self, asked: Asked, fields: Fields) -> tuple[RepositoryName, Tag | None]:
        """Return the repository, and the tag if one is meant; raises InvalidInput for a digest."""
        name = fields.find_image()
        if name is None:
            return fields.repository(), fields.find_tag()
        image = await self._find(asked, name)
        tag = as_tag(image.reference)
        if tag is None:
            raise InvalidInput("expected a tag: what has a digest never changes")
        return image.repository, tag

    async def _image_of(self, asked: Asked, fields: Fields) -> tuple[RepositoryName, Reference | None]:
        """Return the repository, and the image if one is meant."""
        name = fields.find_image()
        if name is None:
            return fields.repository(), fields.find_reference()
        image = await self._find(asked, name)
        return image.repository, image.reference

    async def _one_image(self, asked: Asked, fields: Fields) -> LocalImage:
        name = fields.find_image()
        return LocalImage(fields.repository(), fields.reference()) if name is None else await self._find(asked, name)

    async def _find(self, asked: Asked, name: str) -> LocalImage:
        return await self._cases.explainer.lookup.find(name, self._own_hosts(asked))

    def _own_hosts(self, asked: Asked) -> Collection[str]:
        return {self._host, asked.request.headers.get("Host", "").lower()} - {""}


async def _follow(request: web.BaseRequest, warming: Warming) -> web.StreamResponse:
    """Answer with a line of JSON whenever something has changed, and a last one when it is over."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
    await response.prepare(request)
    last, looks = b"", 0
    while True:
        is_over = await warming.wait(_LOOK_EVERY)
        line = json.dumps(cache_json.warming_json(warming), separators=(",", ":")).encode() + b"\n"
        looks += 1
        if is_over or line != last or looks >= _MOST_LOOKS:
            await response.write(line)
            last, looks = line, 0
        if is_over:
            await response.write_eof()
            return response


def _position(fields: Fields) -> tuple[str, str]:
    repository, _, reference = fields.position("after").partition(" ")
    return repository, reference


def _caller(asked: Asked) -> str:
    """Return whom a request counts for: a user, or an address where there are none."""
    is_user = asked.principal.kind is PrincipalKind.USER
    return asked.principal.name if is_user else f"@{asked.request.remote}"
