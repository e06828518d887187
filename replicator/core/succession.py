"""What of a new image must be here before a tag moves to it from another one.

An image that was whole must not be followed by one that is not: the upstream may be gone by the time of the next pull.
Of an index, those platforms are needed that were whole; what nobody ever pulled is left until somebody does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from replicator.core.digest import Digest
    from replicator.core.manifest import Manifest

_PLATFORM_KEYS = ("os", "architecture", "variant", "os.version")


def needed_successors(before: Manifest, after: Manifest, whole: Collection[Digest]) -> tuple[Digest, ...]:
    """Return the manifests of the index `after` that take the place of those in `before` which are `whole`.

    Where `before` is no index and whole, nothing says which platform it was for: then all of `after` are needed. Only
    call this for a `before` of which something is whole.
    """
    if not before.manifests:
        return tuple(dict.fromkeys(child.digest for child in after.manifests))
    wanted = {_platform_of(child.platform) for child in before.manifests if child.digest in whole}
    return tuple(dict.fromkeys(child.digest for child in after.manifests if _platform_of(child.platform) in wanted))


def _platform_of(platform: Mapping[str, object] | None) -> tuple[object, ...]:
    return tuple(str((platform or {}).get(key, "")) for key in _PLATFORM_KEYS)
