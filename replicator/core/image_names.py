"""Image names as people and Kubernetes manifests write them: `nginx`, `quay.io/org/app:1.0`, `host/app@sha256:…`.

Docker's rules: what stands before the first slash is a registry if it has a dot or a colon or is `localhost`, else the
registry is Docker Hub, where a name without a slash lies in `library`; the tag is `latest` unless one is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.cache_rules import LIBRARY
from replicator.core.digest import parse_digest
from replicator.core.errors import InvalidInput, InvalidReference
from replicator.core.names import RepositoryName, Tag, parse_repository, parse_tag
from replicator.core.reference import image_text

if TYPE_CHECKING:
    from replicator.core.reference import Reference

DOCKER_HUB = "docker.io"
DOCKER_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io"})
DOCKER_HUB_REGISTRY = "registry-1.docker.io"
"""The host that is really asked for what Docker Hub's names stand for."""
DOCKER_HUB_HOSTS = DOCKER_HUB_NAMES | {DOCKER_HUB_REGISTRY}
LATEST = Tag("latest")

_MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class ImageName:
    """A registry's host in lower case, a repository there, and what is wanted of it: a digest wins over a tag."""

    registry: str
    repository: RepositoryName
    reference: Reference

    def __str__(self) -> str:
        return f"{self.registry}/{image_text(self.repository, self.reference)}"


def parse_image_name(text: str) -> ImageName:
    """Return an image name; raises InvalidInput when it is none."""
    if len(text) > _MAX_LENGTH:
        raise InvalidInput("expected an image name of at most 1024 characters")
    rest, _, digest = text.partition("@")
    first, slash, tail = rest.partition("/")
    is_host = bool(slash) and (any(one in first for one in ".:") or first == "localhost" or first != first.lower())
    registry, path = (first.lower(), tail) if is_host else (DOCKER_HUB, rest)
    registry = DOCKER_HUB if registry in DOCKER_HUB_HOSTS else registry
    name, colon, tag = path.partition(":")
    if not registry or (colon and not tag) or ("@" in text and not digest):
        raise InvalidReference(f"expected an image such as nginx:1.27 or quay.io/org/app, got {text[:80]!r}")
    if registry == DOCKER_HUB and "/" not in name:
        name = f"{LIBRARY}/{name}"
    repository = parse_repository(name)
    checked_tag = parse_tag(tag) if tag else LATEST
    return ImageName(registry, repository, parse_digest(digest) if digest else checked_tag)
