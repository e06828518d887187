"""The JSON that operators read about the cache. Times are Unix seconds, sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from replicator.core.reference import as_tag

if TYPE_CHECKING:
    from replicator.cache.explain import Explanation, SourceReport
    from replicator.cache.image_lookup import LocalImage
    from replicator.cache.inventory import CachedImageReport
    from replicator.cache.purges import Purged
    from replicator.cache.refreshes import TagRefresh
    from replicator.cache.usage import CacheUsage
    from replicator.cache.warm_images import Warming
    from replicator.core.cache_rules import CacheRule, Verdict
    from replicator.storage.metadata.cache_entries import CacheEntry
    from replicator.upstream.client import UpstreamClient, UpstreamHealth

Json = Mapping[str, object]


def image_json(found: CachedImageReport, now: float) -> Json:
    """Return a cached image; `upstream` and what follows is null for an image without a tag of its upstream."""
    use, entry, held = found.use, found.entry, found.holdings
    return {
        "repository": found.repository,
        "tag": found.tag,
        "digest": found.digest,
        "rule": found.rule,
        "bytes": held.size,
        "complete": found.is_complete,
        "manifests": {"here": held.manifests, "all": held.all_manifests},
        "blobs": {"here": held.blobs, "all": held.all_blobs},
        "freshness": "fresh" if found.is_fresh else "stale",
        "fetched_at": None if use is None else use.fetched_at,
        "used_at": _used_at(found),
        "pinned": found.is_pinned,
        "plan": None if found.plan is None else found.plan.value,
        "age_seconds": None if entry is None else round(max(0.0, now - entry.checked_at), 3),
        "fresh_until": found.fresh_until,
        **_entry_json(entry),
    }


def refresh_json(found: TagRefresh) -> Json:
    """Return what a check of a tag found."""
    return {"tag": found.tag, "outcome": found.outcome.value, "digest": found.digest, "error": found.error}


def warming_json(found: Warming) -> Json:
    """Return how far an image is."""
    progress = found.progress
    return {
        "repository": found.repository,
        "reference": found.reference,
        "state": found.state.value,
        "digest": found.digest,
        "manifests": progress.manifests,
        "blobs_done": progress.blobs_done,
        "blobs": progress.blobs,
        "bytes_done": progress.bytes_done,
        "bytes": progress.bytes,
        "error": found.error,
    }


def explanation_json(found: Explanation, now: float) -> Json:
    """Return why an image is answered as it is."""
    rule = found.rule
    return {
        "now": now,
        "asked": found.asked,
        "image": None if found.image is None else _local_json(found.image),
        "rule": None if rule is None else _rule_json(rule),
        "fresh_for": _fresh_for(found),
        "problem": found.problem,
        "repository_created_by": found.created_by,
        "repository_allowed": _verdict_json(found.repository_verdict),
        "tag_allowed": _verdict_json(found.tag_verdict),
        "sources": [_source_json(one) for one in found.sources],
        "obtainable": found.is_obtainable,
        "negative": found.negative,
        "cached": None if found.cached is None else image_json(found.cached, now),
    }


def _fresh_for(found: Explanation) -> float | None:
    """Return the seconds for which the tag is served without asking; None without a rule or a tag."""
    tag = None if found.image is None else as_tag(found.image.reference)
    return None if tag is None or found.rule is None else found.rule.freshness_of(tag)


def purged_json(found: Purged) -> Json:
    """Return what a purge did; `kept` are images that had to stay, such as pinned ones."""
    return {"images": found.images, "tags": found.tags, "kept": found.kept, "bytes": found.freed}


def space_json(found: CacheUsage) -> Json:
    """Return what the cache takes up, altogether and by rule; a limit that is not set is null."""
    return {
        "bytes": found.size,
        "limit": found.max_size,
        "keep_free": found.keep_free,
        "rules": [
            {"prefix": prefix, "bytes": size, "limit": found.rule_limits.get(prefix)}
            for prefix, size in found.rules.items()
        ],
    }


def upstream_json(client: UpstreamClient) -> Json:
    """Return a registry that the cache asks, and how it is; not its last error, which names what somebody wanted."""
    return {"name": client.endpoint.name, "url": client.endpoint.url, "health": _health_json(client.health)}


def whole_upstream_json(client: UpstreamClient) -> Json:
    """Return a registry with its last error, for those who may see everything."""
    return {**upstream_json(client), "last_error": client.health.last_error}


def _source_json(found: SourceReport) -> Json:
    """Return a registry that would be asked, and how it is."""
    return {**upstream_json(found.client), "kind": found.kind, "repository": found.repository}


def _health_json(health: UpstreamHealth) -> Json:
    limit = health.rate_limit
    return {
        "breaker": health.breaker.value,
        "paused_seconds": {kind: round(left, 3) for kind, left in health.paused_for.items()},
        "rate_limit": None
        if limit is None
        else {
            "remaining": limit.remaining,
            "limit": limit.limit,
            "window_seconds": limit.window,
            "seen_at": limit.seen_at,
        },
    }


def _local_json(image: LocalImage) -> Json:
    return {"repository": image.repository, "reference": image.reference, "registry": image.registry}


def _rule_json(rule: CacheRule) -> Json:
    return {
        "prefix": rule.prefix,
        "upstream": rule.upstream,
        "upstream_prefix": rule.upstream_prefix,
        "fresh_for": rule.fresh_for,
        "stale_while_revalidate": rule.stale_while_revalidate,
        "max_stale": rule.max_stale,
        "cool_down": rule.cool_down,
        "on_not_found": rule.on_not_found.value,
        "platforms": [str(one) for one in rule.platforms],
    }


def _verdict_json(found: Verdict | None) -> Json | None:
    return None if found is None else {"allowed": found.allowed, "reason": found.reason}


def _used_at(found: CachedImageReport) -> float | None:
    """Return when an image was last used, by its tag or as itself."""
    times = [one.used_at for one in (found.use, found.entry) if one is not None]
    return max(times) if times else None


def _entry_json(entry: CacheEntry | None) -> Json:
    if entry is None:
        names = ("upstream", "checked_at", "changed_at", "failed_at", "last_error", "pending", "drift", "gone_at")
        return dict.fromkeys((*names, "rolled_back_at"))
    return {
        "upstream": entry.upstream,
        "checked_at": entry.checked_at,
        "changed_at": entry.changed_at,
        "failed_at": entry.failed_at,
        "last_error": entry.last_error,
        "pending": entry.pending_digest,
        "drift": entry.drift_digest,
        "gone_at": entry.gone_at,
        "rolled_back_at": entry.rolled_back_at,
    }
