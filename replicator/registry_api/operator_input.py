"""What operators send: small JSON objects and query parameters, with one message for everything that is wrong in them.

A field that is not known is refused, because a misspelt `dry_run` would do what nobody wanted.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

from replicator.core.destinations import DestinationId, parse_destination
from replicator.core.digest import Digest, parse_digest
from replicator.core.errors import InvalidInput
from replicator.core.names import RepositoryName, Tag, parse_region, parse_repository, parse_tag
from replicator.core.platforms import Platform, parse_platform
from replicator.core.reference import Reference, parse_reference
from replicator.core.replication import ReplicationState
from replicator.registry_api.request_body import read_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

MAX_BODY = 64 * 1024
MAX_LIST = 100
MAX_NAME = 200
BODY_TIMEOUT = 30.0
"""Seconds in which a body must have arrived."""

_PREFIX = re.compile(r"[a-z0-9._/-]{0,256}")
_RESULTS = (ReplicationState.COMPLETE.value, ReplicationState.FAILED.value)


class Fields:
    """The fields of a request. Every method raises InvalidInput that says what was expected."""

    def __init__(self, values: Mapping[str, object], *known: str) -> None:
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise InvalidInput(f"expected {_listed(known)}, got {unknown[0][:40]!r}")
        self._values = values

    def repository(self) -> RepositoryName:
        """Return `repository`."""
        return parse_repository(self._text("repository"))

    def find_repository(self) -> RepositoryName | None:
        """Return `repository`, if it is given."""
        return parse_repository(self._text("repository")) if self._has("repository") else None

    def reference(self) -> Reference:
        """Return `reference`: a tag or a digest."""
        return parse_reference(self._text("reference"))

    def find_reference(self) -> Reference | None:
        """Return `reference`, if it is given."""
        return self.reference() if self._has("reference") else None

    def find_digest(self) -> Digest | None:
        """Return `digest`, if it is given."""
        return parse_digest(self._text("digest")) if self._has("digest") else None

    def find_status(self) -> ReplicationState | None:
        """Return `status`, COMPLETE or FAILED, if it is given."""
        if not self._has("status"):
            return None
        if self._values["status"] not in _RESULTS:
            raise InvalidInput(f"expected status to be {' or '.join(_RESULTS)}")
        return ReplicationState(self._text("status"))

    def destination(self) -> DestinationId:
        """Return `destination`."""
        return parse_destination(self._text("destination"))

    def find_destination(self) -> DestinationId | None:
        """Return `destination`, if it is given."""
        return self.destination() if self._has("destination") else None

    def destinations(self) -> tuple[str, ...]:
        """Return `destinations`, none if it is not given."""
        return tuple(str(parse_destination(one)) for one in self._texts("destinations"))

    def regions(self) -> tuple[str, ...]:
        """Return `regions`, none if it is not given."""
        return tuple(parse_region(one) for one in self._texts("regions"))

    def find_tag(self) -> Tag | None:
        """Return `tag`, if it is given."""
        return parse_tag(self._text("tag")) if self._has("tag") else None

    def find_image(self) -> str | None:
        """Return `image`, a name that is still to be read, if it is given."""
        return self._text("image") if self._has("image") else None

    def find_platforms(self) -> tuple[Platform, ...] | None:
        """Return `platforms`, if they are given."""
        return tuple(map(parse_platform, self._texts("platforms"))) if self._has("platforms") else None

    def prefix(self) -> str:
        """Return `prefix`, what names of repositories begin with; empty if it is not given."""
        value = self._text("prefix") if self._has("prefix") else ""
        if _PREFIX.fullmatch(value) is None:
            raise InvalidInput("expected prefix to be what names of repositories begin with")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false, false if it is not given."""
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise InvalidInput(f"expected {name} to be true or false")
        return value

    def seconds(self, name: str, default: float, most: float) -> float:
        """Return a number of seconds from 0 to `most`."""
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise InvalidInput(f"expected {name} to be a number of seconds from 0 to {most:g}")
        return float(value)

    def number(self, name: str, default: int, most: int) -> int:
        """Return a number from 1 to `most` that a query holds as text."""
        text = str(self._values.get(name, default))
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
            raise InvalidInput(f"expected {name} to be a number from 1 to {most}")
        return int(text)

    def find_name(self, name: str) -> str | None:
        """Return a name, such as of a sink, if it is given."""
        if not self._has(name):
            return None
        text = self._text(name)
        if not 0 < len(text) <= MAX_NAME or not text.isprintable():
            raise InvalidInput(f"expected {name} to be a name of up to {MAX_NAME} characters")
        return text

    def position(self, name: str) -> str:
        """Return where a listing goes on, as the page before said; empty for its start."""
        value = self._values.get(name, "")
        if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():
            raise InvalidInput(f"expected {name} to be what the page before gave")
        return value

    def _has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def _text(self, name: str) -> str:
        value = self._values.get(name)
        if not isinstance(value, str):
            raise InvalidInput(f"expected {name} as text")
        return value

    def _texts(self, name: str) -> tuple[str, ...]:
        value = self._values.get(name) or []
        if not isinstance(value, list) or len(value) > MAX_LIST or not all(isinstance(one, str) for one in value):
            raise InvalidInput(f"expected {name} to be a list of up to {MAX_LIST} texts")
        return tuple(value)


def query_fields(request: web.BaseRequest, *known: str) -> Fields:
    """Return the query parameters; the first of several with one name counts."""
    return Fields({name: request.query[name] for name in request.query}, *known)


async def body_fields(request: web.BaseRequest, *known: str) -> Fields:
    """Read a JSON object of at most 64 KiB; an empty body is an empty object.

    Raises InvalidInput, TimeoutError when it does not arrive, and ClientGone.
    """
    async with asyncio.timeout(BODY_TIMEOUT):
        content = await read_whole(request, MAX_BODY, "request")
    try:
        value = json.loads(content) if content.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InvalidInput("expected a JSON object") from error
    if not isinstance(value, dict):
        raise InvalidInput("expected a JSON object")
    return Fields(value, *known)


def _listed(known: tuple[str, ...]) -> str:
    return f"only the fields {', '.join(known)}" if known else "no fields"
