"""A request path, parsed once into the endpoint it names.

A repository name may itself contain `blobs`, `manifests` or `tags`, so the path is read from its end. Only the last
segment, a tag, digest or session id, may be percent-encoded (some clients write `sha256%3A…`); an escape inside a
name is refused rather than decoded, so that no second spelling of a name exists.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from urllib.parse import unquote

from replicator.core.errors import PageNotFound
from replicator.core.names import RepositoryName, parse_repository


class Route(enum.StrEnum):
    """The endpoints, named as in logs and metrics."""

    BASE = "base"
    TOKEN = "token"  # noqa: S105 - an endpoint's name
    CATALOG = "catalog"
    TAGS = "tags"
    MANIFEST = "manifest"
    BLOB = "blob"
    UPLOADS = "uploads"
    UPLOAD = "upload"
    REFERRERS = "referrers"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route with its repository and what follows it in the path: a reference, a digest or a session id, unchecked.

    `namespace` is the registry that the client takes this node for (its `ns` parameter), if it is another one; then
    `repository` is our name, and `named` the name that the client uses, for that registry's repository.
    """

    route: Route
    repository: RepositoryName
    argument: str = ""
    namespace: str | None = None
    client_name: RepositoryName | None = None

    @property
    def named(self) -> RepositoryName:
        """The repository as the client names it."""
        return self.repository if self.client_name is None else self.client_name


_NO_REPOSITORY = RepositoryName("")

_BY_KIND = {
    "manifests": Route.MANIFEST,
    "blobs": Route.BLOB,
    "referrers": Route.REFERRERS,
}


def parse_endpoint(path: str) -> Endpoint:
    """Return the endpoint of a raw path below `/v2/`.

    Raises PageNotFound when there is no such endpoint, InvalidName when the repository name is malformed.
    """
    if path in {"/v2", "/v2/"}:
        return Endpoint(Route.BASE, _NO_REPOSITORY)
    if not path.startswith("/v2/"):
        raise PageNotFound("there is nothing at this path")
    rest = path[4:]
    if rest == "token":
        return Endpoint(Route.TOKEN, _NO_REPOSITORY)
    if rest in {"_catalog", "_catalog/"}:
        return Endpoint(Route.CATALOG, _NO_REPOSITORY)
    if rest.endswith("/tags/list"):
        return Endpoint(Route.TAGS, parse_repository(rest[: -len("/tags/list")]))
    head, _, argument = rest.rpartition("/")
    name, _, kind = head.rpartition("/")
    if kind == "uploads" and name.endswith("/blobs"):
        repository = parse_repository(name[: -len("/blobs")])
        return Endpoint(Route.UPLOAD, repository, argument) if argument else Endpoint(Route.UPLOADS, repository)
    if kind not in _BY_KIND or not name:
        raise PageNotFound("there is nothing at this path")
    if kind == "blobs" and argument == "uploads":
        return Endpoint(Route.UPLOADS, parse_repository(name))
    return Endpoint(_BY_KIND[kind], parse_repository(name), unquote(argument) if "%" in argument else argument)
