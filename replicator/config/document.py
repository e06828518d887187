"""A YAML file as plain values that remember their lines.

The reading is stricter than YAML's: a key appears once, tags and merge keys are refused, `yes` and `012` are text,
and there is one document. It is bounded in depth and in the number of values after aliases are expanded, so that no
file can blow up. The values are built from parser events, so nothing in a file can name a class.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from replicator.config.problems import Finding, KeyPath

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 32
MAX_VALUES = 100_000

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?[0-9]{1,17}\.[0-9]{1,17}")
_CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}
_TEXT_TAG = "tag:yaml.org,2002:str"
# The C parser is part of PyYAML's wheels; a build without libyaml has only the other one, with the same events.
_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(Exception):
    """The text cannot be read as a document at all."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True)
class Document:
    """The values of a file, the line of every key and list item, and what was wrong with its form."""

    data: object
    lines: dict[KeyPath, int] = field(default_factory=dict)
    findings: list[tuple[Finding, int]] = field(default_factory=list)

    def line(self, path: KeyPath) -> int | None:
        """Return the line of a key, or of the nearest section around it."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return line
        return None


@dataclass(slots=True)
class _Node:
    line: int
    scalar: object = None
    items: list[_Node] | None = None
    pairs: list[tuple[_Node, _Node]] | None = None


def read_document(text: str) -> Document:
    """Return the one document in `text`; raise DocumentError when it is not YAML or goes beyond the bounds."""
    try:
        root = _Parser(yaml.parse(text, Loader=_LOADER)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(f"not YAML: {error.problem or error.context}", mark.line + 1 if mark else None) from error
    except yaml.YAMLError as error:
        raise DocumentError("not YAML: it holds a character that YAML does not allow") from error
    document = Document(None)
    document.data = _Expansion(document).value(root, ())
    return document


class _Parser:
    """Builds the tree of one document; recursive, to a bounded depth."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self._anchors: dict[str, _Node] = {}

    def document(self) -> _Node:
        root: _Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise DocumentError("expected one document, got a second one", _line(event))
            if isinstance(event, yaml.NodeEvent):
                root = self._node(event, 0)
        if root is None:
            raise DocumentError("expected a mapping, got an empty file", 1)
        return root

    def _node(self, event: yaml.Event, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise DocumentError(f"nested deeper than {MAX_DEPTH} levels", _line(event))
        if isinstance(event, yaml.AliasEvent):
            # An anchor is known once its value is complete, so a value cannot contain itself.
            if event.anchor not in self._anchors:
                raise DocumentError("an alias names no anchor before it", _line(event))
            return self._anchors[event.anchor]
        node = self._value(event, depth)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _value(self, event: yaml.Event, depth: int) -> _Node:
        line = _line(event)
        tag = getattr(event, "tag", None)
        if tag is not None and not (tag == _TEXT_TAG and isinstance(event, yaml.ScalarEvent)):
            raise DocumentError("tags are not supported", line)
        if isinstance(event, yaml.ScalarEvent):
            # Implicit as a plain scalar: the two parsers write its style differently.
            return _Node(line, scalar=_resolve(event.value) if event.implicit[0] else event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            return _Node(line, items=[self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)])
        keys = self._until(yaml.MappingEndEvent)
        pairs = [(self._node(key, depth + 1), self._node(next(self._events), depth + 1)) for key in keys]
        return _Node(line, pairs=pairs)

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield event


class _Expansion:
    """Turns the tree into values, notes their lines, and reports keys that appear twice."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def value(self, node: _Node, path: KeyPath) -> object:
        self._count += 1
        if self._count > MAX_VALUES or len(path) > MAX_DEPTH:
            raise DocumentError(
                f"more than {MAX_VALUES} values or {MAX_DEPTH} levels after expanding aliases", node.line
            )
        self._document.lines.setdefault(path, node.line)
        if node.items is not None:
            return [self.value(item, (*path, index)) for index, item in enumerate(node.items)]
        if node.pairs is not None:
            return self._mapping(node.pairs, path)
        return node.scalar

    def _mapping(self, pairs: list[tuple[_Node, _Node]], path: KeyPath) -> dict[str, object]:
        result: dict[str, object] = {}
        for key, value in pairs:
            name = self._key(key)
            place = (*path, name)
            if name in result:
                message = f"appears twice, first on line {self._document.lines[place]}"
                self._document.findings.append((Finding(place, message), key.line))
                continue
            self._document.lines[place] = key.line
            result[name] = self.value(value, place)
        return result

    def _key(self, key: _Node) -> str:
        if key.items is not None or key.pairs is not None:
            raise DocumentError("expected a key, got a mapping or list", key.line)
        if key.scalar == "<<":
            raise DocumentError(
                "merge keys are not supported; repeat the section or use an alias for all of it", key.line
            )
        return key.scalar if isinstance(key.scalar, str) else str(key.scalar)


def _resolve(text: str) -> object:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return 0 if mark is None else int(mark.line) + 1
