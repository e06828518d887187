"""A content digest: `algorithm:encoded`, canonical form only.

A digest reaches file names, SQL and URLs, so nothing but the two algorithms the image specification registers, in lower
case and of the right length, ever becomes one (image-spec, descriptor.md, "Digests").
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NewType

from replicator.core.errors import InvalidDigest

if TYPE_CHECKING:
    from hashlib import _Hash

Digest = NewType("Digest", str)

CANONICAL_ALGORITHM = "sha256"
_ENCODED_LENGTH = {"sha256": 64, "sha512": 128}
ALGORITHMS = frozenset(_ENCODED_LENGTH)
_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")


def parse_digest(text: str) -> Digest:
    """Return `text` as a digest; raise InvalidDigest when it is not a canonical sha256 or sha512 digest."""
    if _DIGEST.fullmatch(text) is None:
        raise InvalidDigest(f"expected sha256:<64 hex> or sha512:<128 hex> in lower case, got {_shown(text)}")
    return Digest(text)


def is_digest(text: str) -> bool:
    """Tell whether `text` is a canonical digest."""
    return _DIGEST.fullmatch(text) is not None


def parse_algorithm(text: str) -> str:
    """Return `text` as a supported digest algorithm; raise InvalidDigest otherwise."""
    if text not in ALGORITHMS:
        raise InvalidDigest(f"expected digest algorithm sha256 or sha512, got {_shown(text)}")
    return text


def algorithm_of(digest: Digest) -> str:
    """Return the algorithm part of a digest."""
    return digest.partition(":")[0]


def encoded_of(digest: Digest) -> str:
    """Return the hexadecimal part of a digest."""
    return digest.partition(":")[2]


def new_hasher(algorithm: str) -> _Hash:
    """Return an empty hash object of a supported algorithm."""
    return hashlib.new(parse_algorithm(algorithm), usedforsecurity=True)


def digest_of(content: bytes, algorithm: str = CANONICAL_ALGORITHM) -> Digest:
    """Compute the digest of `content`."""
    hasher = new_hasher(algorithm)
    hasher.update(content)
    return finished(hasher)


def finished(hasher: _Hash) -> Digest:
    """Return the digest that a hash object has arrived at."""
    return Digest(f"{hasher.name}:{hasher.hexdigest()}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
