"""What a manifest is asked for by: a tag or a digest.

The two grammars do not overlap (a tag has no colon), so a reference is one string whose kind is read off it.
"""

from __future__ import annotations

from replicator.core.digest import Digest, parse_digest
from replicator.core.errors import InvalidReference, InvalidTag
from replicator.core.names import Tag, parse_tag

Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """Return `text` as a digest if it holds a colon, else as a tag.

    Raises InvalidDigest for a malformed digest and InvalidReference for anything else.
    """
    if ":" in text:
        return parse_digest(text)
    try:
        return parse_tag(text)
    except InvalidTag as error:
        raise InvalidReference(str(error)) from error


def image_text(repository: str, reference: str) -> str:
    """Return an image as it is written: `repository:tag` or `repository@digest`."""
    return f"{repository}{'@' if ':' in reference else ':'}{reference}"


def as_digest(reference: Reference) -> Digest | None:
    """Return the reference if it is a digest."""
    return Digest(reference) if ":" in reference else None


def as_tag(reference: Reference) -> Tag | None:
    """Return the reference if it is a tag."""
    return None if ":" in reference else Tag(reference)
