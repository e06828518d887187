"""Which repository of this node an image name means, whoever wrote it.

A name may be ours (`docker-hub/library/nginx:1.27`), that of another registry (`quay.io/org/app`, `nginx`), or ours
with this node's address in front. What is ambiguous is decided in this order, and never guessed beyond it:

    our own address in front            -> our name
    below the prefix of a rule          -> our name
    another registry's host in front    -> the rule that stands for that registry; none: not an image of ours
    a repository that exists here       -> our name
    no host in front                    -> Docker Hub's name, if a rule stands for it
    anything else                       -> our name: only a rule for all names can have it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.cache_rules import ROOT, match_cache_rule, match_namespace
from replicator.core.digest import parse_digest
from replicator.core.errors import InvalidInput, InvalidName, RepositoryNotFound
from replicator.core.image_names import LATEST, parse_image_name
from replicator.core.names import parse_repository, parse_tag
from replicator.core.reference import image_text
from replicator.storage.metadata import repositories

if TYPE_CHECKING:
    from collections.abc import Collection

    from replicator.core.image_names import ImageName
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image of this node. `registry` is the host that its name began with, where it was another registry's name."""

    repository: RepositoryName
    reference: Reference
    registry: str | None = None

    def __str__(self) -> str:
        return image_text(self.repository, self.reference)


class NoRule(RepositoryNotFound):
    """no cache rule stands for this registry."""


class ImageLookup:
    """Finds what image names mean at one node."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def find(self, text: str, own_hosts: Collection[str] = ()) -> LocalImage:
        """Return the image that a name means; `own_hosts` are addresses of this node, with the port.

        Raises InvalidInput when it is no name, NoRule when it is another registry's and no rule stands for that.
        """
        first, slash, rest = text.partition("/")
        if slash and first.lower() in own_hosts:
            return _parse_local(rest)
        local = _find_local(text)
        if local is not None and self._has_prefix(local.repository):
            return local
        named = parse_image_name(text)
        is_foreign = local is None or text.startswith(f"{named.registry}/")
        if not is_foreign and local is not None and await self._exists(local.repository):
            return local
        found = self._stand_in(named)
        if found is not None:
            return found
        if is_foreign or local is None:
            raise NoRule(f"no cache rule stands for {named.registry}/{named.repository}")
        return local

    def _has_prefix(self, repository: RepositoryName) -> bool:
        match = match_cache_rule(self._node.settings.cache_rules, repository)
        return match is not None and match.rule.prefix != ROOT

    async def _exists(self, repository: RepositoryName) -> bool:
        return await self._node.database.read(repositories.find(repository)) is not None

    def _stand_in(self, named: ImageName) -> LocalImage | None:
        found = match_namespace(self._node.settings.cache_rules, named.registry, named.repository)
        return None if found is None else LocalImage(found[1], named.reference, named.registry)


def _find_local(text: str) -> LocalImage | None:
    try:
        return _parse_local(text)
    except InvalidInput:
        return None


def _parse_local(text: str) -> LocalImage:
    """Return `repository[:tag][@digest]` as an image of ours; raises InvalidInput."""
    rest, at, digest = text.partition("@")
    name, colon, tag = rest.partition(":")
    if (colon and not tag) or (at and not digest):
        raise InvalidName(f"expected an image such as docker-hub/library/nginx:1.27, got {text[:80]!r}")
    repository = parse_repository(name)
    checked_tag = parse_tag(tag) if tag else LATEST
    return LocalImage(repository, parse_digest(digest) if digest else checked_tag)
