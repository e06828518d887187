"""Where a registry without the referrers API keeps the list of an image's referrers: in an index under a tag.

Clients look there (distribution-spec, "Referrers Tag Schema"), so whoever puts a referrer into such a registry has to
list it, or nobody finds it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from replicator.core.errors import InvalidInput, UpstreamRefused
from replicator.core.manifest import Manifest, parse_manifest
from replicator.core.media_types import OCI_INDEX
from replicator.core.names import Tag, parse_tag

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.storage.metadata.images import StoredManifest

_MAX_ALGORITHM = 32
_MAX_ENCODED = 64


def referrers_tag(subject: Digest) -> Tag:
    """Return the tag that lists the referrers of an image."""
    algorithm, _, encoded = subject.partition(":")
    return parse_tag(f"{algorithm[:_MAX_ALGORITHM]}-{encoded[:_MAX_ENCODED]}")


def with_referrer(listed: bytes | None, manifest: StoredManifest, parsed: Manifest) -> bytes | None:
    """Return the index `listed` (None: there is none yet) with a referrer added, or None when it lists it already.

    Raises UpstreamRefused when what is under the tag is no index, and so somebody else's.
    """
    document: dict[str, object] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    if listed is not None:
        try:
            known = parse_manifest(listed)
        except InvalidInput as error:
            raise UpstreamRefused("expected an index of referrers under their tag") from error
        if not known.is_index:
            raise UpstreamRefused(f"expected an index of referrers under their tag, got {known.media_type}")
        if manifest.digest in known.children:
            return None
        document = json.loads(listed)
    entries = document["manifests"]
    assert isinstance(entries, list)  # noqa: S101 - it was parsed as an index
    document["manifests"] = [*entries, _descriptor(manifest, parsed)]
    return json.dumps(document, separators=(",", ":")).encode()


def _descriptor(manifest: StoredManifest, parsed: Manifest) -> dict[str, object]:
    found: dict[str, object] = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.content),
    }
    if parsed.referrer_type:
        found["artifactType"] = parsed.referrer_type
    if parsed.annotations:
        found["annotations"] = dict(parsed.annotations)
    return found
