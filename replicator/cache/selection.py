"""Which of an upstream's repositories and tags a rule lets be pulled, cached ones too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.reference import as_tag

if TYPE_CHECKING:
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.reference import Reference


def refusal_of(source: UpstreamRepository, reference: Reference) -> str | None:
    """Return why a rule does not let something be pulled, or None when it does.

    A digest passes where its repository does.
    """
    rule = source.rule
    if not rule.repositories.permits(source.name):
        return f"cache rule {rule.prefix} does not allow repository {source.name} of {rule.upstream}"
    tag = as_tag(reference)
    if tag is not None and not rule.tags.permits(tag):
        return f"cache rule {rule.prefix} does not allow tag {tag}"
    return None
