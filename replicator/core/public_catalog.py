"""What is told of a public repository to people who look for one: its catalog data (ECR §16)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import InvalidInput

if TYPE_CHECKING:
    from replicator.core.digest import Digest

LOGO_TYPE = "image/png"
LOGO_PATH = "/_ecr/logos/"
"""Below which a node serves logos."""

_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER = slice(12, 16)


@dataclass(frozen=True, slots=True)
class CatalogData:
    """The description of a repository; `logo` is the digest of its logo, which is kept apart."""

    description: str | None = None
    architectures: tuple[str, ...] | None = None
    operating_systems: tuple[str, ...] | None = None
    about: str | None = None
    usage: str | None = None
    logo: Digest | None = None

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})


def parse_catalog(text: str) -> CatalogData:
    """Return what `to_json` wrote."""
    document = json.loads(text)
    for name in ("architectures", "operating_systems"):
        if name in document:
            document[name] = tuple(document[name])
    return CatalogData(**document)


def check_logo(content: bytes) -> bytes:
    """Return a logo; raise InvalidInput for anything but a PNG, which a browser can only take for a picture."""
    if not content.startswith(_PNG) or content[_HEADER] != b"IHDR":
        raise InvalidInput("expected a PNG image")
    return content
