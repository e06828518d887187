"""Platforms, by which manifests of an index are chosen.

What says nothing of a platform, and attestations, belong to every one: an image without them would be another image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_LENGTH = 80
_FORM = re.compile(r"([a-z0-9]+)/([a-z0-9_]+)(?:/([a-z0-9.]+))?")


@dataclass(frozen=True, slots=True)
class Platform:
    """`os/architecture`, optionally with `/variant`: which manifests of an index are copied."""

    os: str
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        """Return the platform as it is written."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def matches(self, platform: Mapping[str, object] | None) -> bool:
        """Tell whether a descriptor's platform is this one; a manifest without a platform belongs to every one."""
        if platform is None or "architecture" not in platform:
            return True
        if (platform.get("os"), platform.get("architecture")) == ("unknown", "unknown"):
            return True  # attestations, as buildkit writes them
        same = (platform.get("os"), platform.get("architecture")) == (self.os, self.architecture)
        return same and self.variant in {None, platform.get("variant")}


def parse_platform(text: str) -> Platform:
    """Return `linux/amd64` or `linux/arm64/v8` as a platform; raise InvalidInput for anything else."""
    found = _FORM.fullmatch(text)
    if found is None or len(text) > _MAX_LENGTH:
        raise InvalidInput(f"expected a platform such as linux/amd64 or linux/arm64/v8, got {text[:_MAX_LENGTH]!r}")
    return Platform(found[1], found[2], found[3])
