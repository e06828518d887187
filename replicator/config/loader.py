"""From a file to settings, or to a list of everything that is wrong with it.

A file is judged as a whole: unknown keys, malformed values, keys that appear twice, names that lead nowhere and secrets
that are not there are all reported together, each with its key and line. What makes a section unusable hides only what
depends on that section.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from replicator.config.checks import check
from replicator.config.document import MAX_BYTES, Document, DocumentError, read_document
from replicator.config.explain import explain, file_path
from replicator.config.model import Settings
from replicator.config.problems import Finding, KeyPath, Problem, child_of, dotted, raise_errors
from replicator.config.references import check_references

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

_RULE_DEPTH = 5
_UPSTREAM_DEPTH = 2
_MAX_NAME = 100


def load_settings(path: Path | str, environ: Mapping[str, str]) -> Settings:
    """Return the settings in a file; raise ConfigurationError, one line per problem, when it has errors.

    Reads files, and is meant for the time before the loop runs.
    """
    return load_with_warnings(path, environ)[0]


def load_for_reload(path: Path | str) -> Settings:
    """Return the settings in a file, whose secrets and other files nobody has looked for.

    Raises ConfigurationError for every other error in it.
    """
    settings, problems = _judge(Path(path), None)
    raise_errors(problems)
    assert settings is not None  # noqa: S101 - there are no settings only where there are errors
    return settings


def load_with_warnings(path: Path | str, environ: Mapping[str, str]) -> tuple[Settings, list[Problem]]:
    """Return the settings in a file, and what is doubtful about it; raise ConfigurationError when it has errors."""
    settings, problems = _judge(Path(path), environ)
    raise_errors(problems)
    assert settings is not None  # noqa: S101 - there are no settings only where there are errors
    return settings, problems


def check_settings(path: Path | str, environ: Mapping[str, str]) -> list[Problem]:
    """Return every error and warning about a file, in the order of its lines."""
    return _judge(Path(path), environ)[1]


def _judge(path: Path, environ: Mapping[str, str] | None) -> tuple[Settings | None, list[Problem]]:
    try:
        document = read_document(_read(path))
    except DocumentError as error:
        return None, [Problem(str(path), error.line, "", str(error))]
    findings = list(document.findings)
    settings, more = _validate(document, path.parent)
    if settings is not None:
        more += check(settings)
    if settings is not None and environ is not None:
        more += check_references(settings, environ)
    findings += [(finding, document.line(finding.path) or 1) for finding in more]
    problems = [
        Problem(str(path), line, dotted(one.path), _with_subject(one, document.data), one.severity)
        for one, line in findings
    ]
    return settings, sorted(problems, key=lambda problem: (problem.line or 0, problem.key))


def _with_subject(finding: Finding, data: object) -> str:
    """Return the message, with the name of what it is about in front: indexes are hard to find."""
    subject = None
    if finding.path[2:4] == ("replication", "rules"):
        subject = _named("rule", finding.path, data, _RULE_DEPTH, "name")
    elif finding.path[2:4] == ("cache", "rules"):
        subject = _named("cache rule", finding.path, data, _RULE_DEPTH, "prefix")
    elif finding.path[:1] == ("upstreams",):
        upstream = _named("upstream", finding.path, data, _UPSTREAM_DEPTH, "name")
        rules = _used_by(data, upstream.removeprefix("upstream ")) if upstream is not None else None
        subject = f"{upstream} of cache rule {rules}" if rules else None
    return finding.message if subject is None else f"{subject}: {finding.message}"


def _named(kind: str, path: KeyPath, data: object, depth: int, key: str) -> str | None:
    """Return what the section is called that the first `depth` parts of `path` lead to, unless it has no good name."""
    here = data
    for part in (*path[:depth], key):
        here = child_of(here, part)
    good = len(path) >= depth and isinstance(here, str) and here and here.isprintable()
    return f"{kind} {here[:_MAX_NAME]}" if good and isinstance(here, str) else None


def _used_by(data: object, upstream: str) -> str:
    """Return the prefixes of the cache rules that an upstream answers for: they fail with it."""
    prefixes: list[str] = []
    for node in _items(child_of(data, "nodes")):
        for rule in _items(child_of(child_of(node, "cache"), "rules")):
            named = [child_of(rule, "upstream"), *_items(child_of(rule, "mirrors"))]
            prefix = child_of(rule, "prefix")
            if upstream in named and isinstance(prefix, str) and prefix and prefix.isprintable():
                prefixes.append(prefix[:_MAX_NAME])
    return ", ".join(dict.fromkeys(prefixes))


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _read(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror or 'input/output error'}") from error
    if len(data) > MAX_BYTES:
        raise DocumentError(f"is larger than {MAX_BYTES // 2**20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        # Not chained: the decoder's error carries the bytes of the file.
        raise DocumentError("is not UTF-8 text", line) from None


def _validate(document: Document, directory: Path) -> tuple[Settings | None, list[Finding]]:
    """Return the settings as far as they can be understood, for further checks, and what is wrong with them."""
    data = document.data
    if not isinstance(data, dict):
        return None, [Finding((), "expected a mapping with version and nodes")]
    context = {"directory": directory}
    try:
        return Settings.model_validate(data, context=context), []
    except ValidationError as error:
        errors = [one for one in error.errors(include_url=False) if not _is_consequence(one)]
    findings = [explain(one, data) for one in errors]
    try:
        return Settings.model_validate(_without(data, errors), context=context), findings
    except ValidationError:
        return None, findings


def _is_consequence(error: ErrorDetails) -> bool:
    """Tell whether a list is said to be too short only because its items are wrong."""
    return error["type"] == "too_short" and len(error["input"]) >= error.get("ctx", {}).get("min_length", 0)


def _without(data: object, errors: list[ErrorDetails]) -> object:
    """Return `data` without the keys that are wrong, so that the rest can be checked where those keys are optional."""
    pruned = copy.deepcopy(data)
    paths = {file_path(error["loc"], data) for error in errors if error["type"] != "missing"}
    # From the end, so that the indexes of list items before a removed one stay true.
    for path in sorted(paths, key=_order, reverse=True):
        _remove(pruned, path)
    return pruned


def _order(path: KeyPath) -> list[tuple[int, str]]:
    return [(part, "") if isinstance(part, int) else (-1, part) for part in path]


def _remove(data: object, path: KeyPath) -> None:
    if not path:
        return
    here = data
    for part in path[:-1]:
        here = child_of(here, part)
    last = path[-1]
    if isinstance(here, dict):
        here.pop(last, None)
    elif isinstance(here, list) and isinstance(last, int) and not any(isinstance(item, dict) for item in here):
        # A section stays in its list: without it, findings about those after it would name the wrong one.
        del here[last]
