"""What is wrong with a configuration, and where: a list that a person can work through in one go."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

KeyPath = tuple[str | int, ...]


class Severity(enum.StrEnum):
    """Whether the daemon refuses to start."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem before its place in the file is looked up."""

    path: KeyPath
    message: str
    severity: Severity = Severity.ERROR


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: its file, line, dotted key and what was expected instead."""

    file: str
    line: int | None
    key: str
    message: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


ABSENT = object()


def child_of(value: object, part: str | int) -> object:
    """Return what a mapping or list has under a key or index; ABSENT when it has nothing there."""
    if isinstance(value, dict):
        return value.get(part, ABSENT)
    if isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value):
        return value[part]
    return ABSENT


def dotted(path: KeyPath) -> str:
    """Return a path as people write it: `nodes[0].listen`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def repeated(values: Iterable[tuple[KeyPath, Hashable]], what: str = "") -> Iterator[Finding]:
    """Yield a finding for every value that appeared before; `what` names it where the value itself says too little."""
    first: dict[Hashable, KeyPath] = {}
    for path, value in values:
        if value in first:
            subject = f"{what} " if what else f"{value} "
            yield Finding(path, f"{subject}is already used by {dotted(first[value])}")
        else:
            first[value] = path


def raise_errors(problems: list[Problem]) -> None:
    """Raise ConfigurationError with every error, one per line; return when there are only warnings."""
    errors = [str(problem) for problem in problems if problem.severity is Severity.ERROR]
    if errors:
        raise ConfigurationError("\n".join(errors))
