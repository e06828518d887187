"""The cache in words: what a node says as JSON, as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicator.core.reference import image_text
from replicator.daemon.amounts import age_text, size_text
from replicator.daemon.upstream_text import health_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Json = Mapping[str, Any]

_SHORT = 19
"""Characters of a digest that tell images apart: the algorithm and twelve digits."""

_FOR_EVER = 50 * 365 * 86400.0

_PLANS = {
    "fresh": "served from here, nobody is asked",
    "serve": "served from here; nobody is asked, because nothing new would be learnt now",
    "serve-and-check": "served from here at once, and checked afterwards",
    "check-first": "checked first; served from here if the check fails or takes too long",
    "refuse-stale": "checked first, and refused if that fails: it was not confirmed for too long",
}


def image_name(one: Json) -> str:
    """Return the name of a cached image."""
    return image_text(one["repository"], one["tag"] or one["digest"])


def here_text(one: Json) -> str:
    """Return how much of an image is here."""
    if one["complete"]:
        return "complete"
    parts = [
        f"{found['here']} of {found['all']} {name}"
        for name, found in (("manifests", one["manifests"]), ("blobs", one["blobs"]))
        if found["here"] < found["all"]
    ]
    return ", ".join(parts)


def notes_of(one: Json, now: float) -> list[str]:
    """Return what is unusual about a cached image."""
    notes = ["pinned"] if one["pinned"] else []
    if one["gone_at"] is not None:
        notes.append(f"gone upstream since {age_text(now - one['gone_at'])}")
    if one["pending"]:
        notes.append(f"{one['pending'][:_SHORT]} upstream is too new to be served")
    if one["drift"]:
        notes.append(f"is {one['drift'][:_SHORT]} upstream, but must not move here")
    if one["rolled_back_at"] is not None:
        notes.append(f"went back upstream {age_text(now - one['rolled_back_at'])} ago")
    if one["last_error"]:
        notes.append(f"check failed {age_text(now - one['failed_at'])} ago: {one['last_error']}")
    return notes


def image_row(one: Json, now: float) -> tuple[str, ...]:
    """Return the row of a cached image in a table."""
    return (
        image_name(one),
        one["digest"][:_SHORT],
        size_text(one["bytes"]),
        here_text(one),
        "" if one["age_seconds"] is None else age_text(one["age_seconds"]),
        one["freshness"],
        "" if one["used_at"] is None else f"{age_text(now - one['used_at'])} ago",
        "; ".join(notes_of(one, now)),
    )


def explanation_lines(found: Json) -> Iterator[tuple[str, str]]:
    """Yield what is shown of an explanation, as names and texts."""
    yield "asked", found["asked"]
    image, rule = found["image"], found["rule"]
    if image is not None:
        standing = f", for {image['registry']}" if image["registry"] else ""
        yield "repository", f"{image_text(image['repository'], image['reference'])} at {found['node']}{standing}"
    if rule is not None:
        lasting = rule["fresh_for"] if found["fresh_for"] is None else found["fresh_for"]
        yield "rule", f"{rule['prefix']}: upstream {rule['upstream']}, fresh for {_lasting_text(lasting)}"
    if found["problem"]:
        yield "upstream", f"is not asked: {found['problem']}"
    elif found["repository_created_by"] not in {None, "cache"}:
        yield "note", f"the repository was created by a {found['repository_created_by']}, and the rule covers it"
    for place, one in enumerate(found["sources"], 1):
        yield (
            "source",
            f"{place}. {one['kind']} {one['name']} {one['url']} as {one['repository']}{_after(health_text(one))}",
        )
    for name in ("repository", "tag"):
        verdict = found[f"{name}_allowed"]
        if verdict is not None:
            yield "allowed", f"{name}: {'yes' if verdict['allowed'] else 'no'}, {verdict['reason']}"
    if found["negative"]:
        yield "remembered", f"the upstream is not asked again yet: {found['negative']}"
    yield from _cached_lines(found)


def _cached_lines(found: Json) -> Iterator[tuple[str, str]]:
    one, now = found["cached"], found["now"]
    if one is None:
        would = "no; a pull is told what is remembered" if found["negative"] else "no; a pull fetches it"
        yield "cached", would if found["obtainable"] else "no, and a pull would not fetch it"
        return
    yield "cached", f"{one['digest']}, {size_text(one['bytes'])}, {here_text(one)}"
    if one["checked_at"] is not None:
        left = one["fresh_until"] - now
        until = f"fresh for {_lasting_text(left, 'another ')}" if left > 0 else f"stale since {age_text(-left)}"
        yield "confirmed", f"{age_text(one['age_seconds'])} ago, {until}"
        yield "pull", _PLANS.get(one["plan"], str(one["plan"]))
        yield "last check", _last_check(one, now)
    elif one["tag"]:
        yield "pull", "served from here: the tag was pushed, the upstream has no say in it"
    else:
        yield "pull", "served from here: what has a digest never changes"
    for note in notes_of({**one, "last_error": None}, now):
        yield "note", note


def _lasting_text(seconds: float, another: str = "") -> str:
    """Return how long something lasts; `forever` is a number of seconds that nobody will see the end of."""
    return "ever" if seconds >= _FOR_EVER else another + age_text(seconds)


def _after(text: str) -> str:
    return f": {text}" if text else ""


def _last_check(one: Json, now: float) -> str:
    if one["last_error"]:
        return f"failed {age_text(now - one['failed_at'])} ago: {one['last_error']}"
    return f"confirmed it; it came to be this digest {age_text(now - one['changed_at'])} ago"


def upstream_line(one: Json) -> str:
    """Return an upstream and how it is."""
    error = f", last error: {one['last_error']}" if one["last_error"] else ""
    return f"{one['name']} {one['url']}: {health_text(one) or 'well'}{error}"


def space_lines(space: Json) -> Iterator[str]:
    """Yield how much the cache takes, altogether and by rule."""
    yield _amount("altogether", space["bytes"], space["limit"])
    for rule in space["rules"]:
        yield _amount(f"rule {rule['prefix']}", rule["bytes"], rule["limit"])


def _amount(name: str, size: int, limit: int | None) -> str:
    text = f"{name}: {size_text(size)}"
    return text if limit is None else f"{text} of {size_text(limit)} ({size / limit if limit else 1:.0%})"
