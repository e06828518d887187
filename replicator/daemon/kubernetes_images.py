"""The images that a folder of Kubernetes manifests names, whatever kinds of objects they are in.

Containers are found by their place in a document, not by its kind, so that a List, a CronJob and a custom resource of
the same shape are read alike. A document that cannot be read is reported and left out; the others of its file and
folder are read all the same. Nothing in a file is run or expanded: an alias is looked at once.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from replicator.core.errors import InvalidInput
from replicator.core.image_names import parse_image_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_FILES = 10_000
MAX_FILE = 8 * 2**20
MAX_TOTAL = 256 * 2**20
MAX_DEPTH = 200
SUFFIXES = frozenset({".yaml", ".yml", ".json"})

_CONTAINERS = frozenset({"containers", "initContainers", "ephemeralContainers"})
_TEMPLATE = re.compile(r"\{\{|\$\{|\$\(")
_SEPARATOR = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
# The C parser is part of PyYAML's wheels; a build without libyaml has only the other one.
_LOADER: type = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class _TooDeep(yaml.YAMLError):
    """nested deeper than any manifest is."""


@dataclass(frozen=True, slots=True)
class FileProblem:
    """What of a file could not be read; `line` None: the whole of it."""

    file: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.reason}"


@dataclass(slots=True)
class FoundImages:
    """Names of images with the registry in front, each once in the order found, and what could not be read."""

    images: dict[str, None] = field(default_factory=dict)
    problems: list[FileProblem] = field(default_factory=list)


def read_folder(folder: Path) -> FoundImages:
    """Return the images of all manifests below a folder, or of one file; raises InvalidInput when there is none."""
    found = FoundImages()
    total = 0
    for path in _files(folder):
        name = str(path.relative_to(folder)) if path != folder else path.name
        try:
            size = path.stat().st_size
            total += size
            if size > MAX_FILE or total > MAX_TOTAL:
                limit = MAX_FILE if size > MAX_FILE else MAX_TOTAL
                found.problems.append(FileProblem(name, None, f"not read: more than {limit // 2**20} MiB"))
                continue
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error.strerror)
            found.problems.append(FileProblem(name, None, f"cannot be read: {reason}"))
            continue
        read_text(found, name, text)
    return found


def read_text(found: FoundImages, name: str, text: str) -> None:
    """Add the images of one file's documents to `found`."""
    for first_line, document in _documents(text):
        try:
            node = _compose(document)
        except yaml.YAMLError as error:
            if name.endswith(".json") and (plain := _plain_json(document)) is not None:
                _walk(found, name, first_line, _compose(plain))
                continue
            found.problems.append(_unreadable(name, first_line, document, error))
        else:
            _walk(found, name, first_line, node)


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InvalidInput(f"expected a folder of Kubernetes manifests, got {str(folder)!r}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InvalidInput(f"{folder} holds no *.yaml, *.yml or *.json file")
    if len(found) > MAX_FILES:
        raise InvalidInput(f"expected at most {MAX_FILES} files below {folder}")
    return found


def _documents(text: str) -> Iterator[tuple[int, str]]:
    """Yield each document of a text with the line it begins on.

    They are read apart, so that one which is malformed does not take those after it along. A line that begins with
    three dashes ends a document wherever it stands, within quotes too (YAML 1.2, section 9.1.4).
    """
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(text))]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        lines = (line.strip() for line in text[start:end].splitlines())
        if any(line and line[0] not in "#%" for line in lines):  # not only comments and directives
            yield text.count("\n", 0, start) + 1, text[start:end]


def _compose(text: str) -> yaml.Node | None:
    """Return the tree of one document; raises YAMLError, also for what is nested deeper than any manifest is."""
    depth = 0
    # Trees are made by recursion, in C: what is too deep for it ends the process, so that must be known before.
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _TooDeep("nested too deeply")
    return yaml.compose(text, Loader=_LOADER)


def _plain_json(text: str) -> str | None:
    """Return JSON in a form that is YAML as well, or None when it is no JSON; its lines are lost."""
    try:
        # YAML has no escapes for characters beyond the first plane, so there must be none.
        return json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace").decode()
    except (ValueError, RecursionError):
        return None


def _unreadable(name: str, first_line: int, document: str, error: yaml.YAMLError) -> FileProblem:
    template = _TEMPLATE.search(document)
    if template is not None and template[0] == "{{":
        line = first_line + document.count("\n", 0, template.start())
        return FileProblem(name, line, "is a template: render it first")
    if isinstance(error, _TooDeep):
        return FileProblem(name, first_line, "is nested too deeply")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "context", None) or "a character that is not allowed"
    return FileProblem(name, None if mark is None else first_line + mark.line, f"not YAML: {reason}")


def _walk(found: FoundImages, name: str, first_line: int, root: yaml.Node | None) -> None:
    """Add what the containers and image volumes of a document name; every node is looked at once."""
    waiting = [] if root is None else [root]
    seen: set[int] = set()
    places: list[yaml.ScalarNode] = []
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                waiting.append(value)
                places += _images_below(key, value)
    for place in sorted(places, key=lambda one: (one.start_mark.line, one.start_mark.column)):
        _add(found, name, first_line + place.start_mark.line, place.value)


def _images_below(key: yaml.Node, value: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.SequenceNode):
        return
    if key.value in _CONTAINERS:
        yield from (image for one in value.value if (image := _scalar(one, "image")) is not None)
    elif key.value == "volumes":
        volumes = (_member(one, "image") for one in value.value)
        yield from (image for one in volumes if (image := _scalar(one, "reference")) is not None)


def _member(node: yaml.Node | None, wanted: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if isinstance(key, yaml.ScalarNode) and key.value == wanted), None)


def _scalar(node: yaml.Node | None, wanted: str) -> yaml.ScalarNode | None:
    found = _member(node, wanted)
    return found if isinstance(found, yaml.ScalarNode) else None


def _add(found: FoundImages, name: str, line: int, text: str) -> None:
    if not text.strip():
        return  # a custom resource that leaves the image to its controller
    if _TEMPLATE.search(text):
        found.problems.append(FileProblem(name, line, f"{text[:80]!r} is a template: render it first"))
        return
    try:
        found.images[str(parse_image_name(text.strip()))] = None
    except InvalidInput as error:
        found.problems.append(FileProblem(name, line, str(error)))
