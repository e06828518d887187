"""`replicator cache warm`: has a node fetch whole images, and shows how far they are.

Names come from the command line, from a list, from Kubernetes manifests, or from all of them; each is fetched once.
What cannot be fetched, or read, is reported and does not stop the rest.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from replicator.core.errors import InvalidInput
from replicator.core.platforms import parse_platform
from replicator.daemon.amounts import size_text
from replicator.daemon.kubernetes_images import FoundImages, read_folder
from replicator.daemon.node_client import CACHE, NodeFailed, choose, open_clients

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from replicator.daemon.asking import Asking
    from replicator.daemon.node_client import NodeClient

MAX_LIST = 8 * 2**20
_OVER = {"complete", "failed"}


@dataclass(frozen=True, slots=True)
class Warming:
    """What to fetch: images, those of a list, and those of a folder of manifests; `-` is a list on standard input."""

    images: tuple[str, ...]
    file: Path | None = None
    manifests: Path | None = None
    platforms: tuple[str, ...] = ()
    concurrency: int = 4


class _View(Protocol):
    def show(self, image: str, found: Mapping[str, Any]) -> None:
        """Show how far an image is."""
        ...


def run(asking: Asking, warming: Warming) -> int:
    """Fetch images; return 1 when one failed, or when something could not be read. Raises InvalidInput."""
    for one in warming.platforms:
        parse_platform(one)
    if not (warming.images or warming.file or warming.manifests):
        raise InvalidInput("expected images, --file or --manifests")
    found = FoundImages() if warming.manifests is None else read_folder(warming.manifests)
    names = dict.fromkeys((*warming.images, *_listed(warming.file), *found.images))
    return asyncio.run(_warm(asking, warming, list(names), found))


def _listed(file: Path | None) -> Iterator[str]:
    """Yield the names in a list: one a line, what follows a # is a comment. Raises InvalidInput."""
    if file is None:
        return
    try:
        if str(file) == "-":
            text = sys.stdin.read(MAX_LIST + 1)
        else:
            with file.open(encoding="utf-8-sig") as opened:
                text = opened.read(MAX_LIST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"cannot read {file}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}"
        ) from error
    if len(text) > MAX_LIST:
        raise InvalidInput(f"expected a list of at most {MAX_LIST // 2**20} MiB")
    for line in text.splitlines():
        name = line.partition("#")[0].strip()
        if name:
            yield name


async def _warm(asking: Asking, warming: Warming, names: list[str], found: FoundImages) -> int:
    async with open_clients(asking, CACHE) as clients:
        client = choose(clients, asking.source)
        with _view(len(names), quiet=asking.as_json) as view:
            results = await _fetch_all(client, warming, names, view)
    failed = [one for one in results if one["state"] != "complete"]
    if asking.as_json:
        problems = [{"file": one.file, "line": one.line, "reason": one.reason} for one in found.problems]
        sys.stdout.write(json.dumps({"node": client.name, "images": results, "problems": problems}, indent=2) + "\n")
    else:
        sys.stdout.write(f"{client.name}: {_summary(results)}\n")
        sys.stderr.writelines(f"replicator: {one['image']}: {one['error']}\n" for one in failed)
        sys.stderr.writelines(f"replicator: {one}\n" for one in found.problems)
    return 1 if failed or found.problems else 0


async def _fetch_all(client: NodeClient, warming: Warming, names: list[str], view: _View) -> list[dict[str, Any]]:
    """Return what became of each image, in order; at most `concurrency` are asked for at the same time."""
    results: dict[str, dict[str, Any]] = {}
    waiting = iter(names)
    platforms = list(warming.platforms) or None

    async def take() -> None:
        for name in waiting:
            results[name] = await _fetch(client, name, platforms, view)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(warming.concurrency, len(names))):
            group.create_task(take())
    return [results[name] for name in names]


async def _fetch(client: NodeClient, name: str, platforms: list[str] | None, view: _View) -> dict[str, Any]:
    found: dict[str, Any] = {"image": name, "state": "waiting", "bytes": 0, "bytes_done": 0, "error": None}
    try:
        async for line in client.lines("warm", {"image": name, "platforms": platforms}):
            found = {"image": name, **line}
            view.show(name, found)
    except NodeFailed as error:
        found |= {"state": "failed", "error": error.reason}
    if found["state"] not in _OVER:
        found |= {"state": "failed", "error": "the node broke off; ask again for the rest"}
    view.show(name, found)
    return found


def _summary(results: list[dict[str, Any]]) -> str:
    complete = [one for one in results if one["state"] == "complete"]
    failed = len(results) - len(complete)
    size = size_text(sum(one["bytes"] for one in complete))
    text = f"{len(complete)} of {len(results)} images complete, {size}"
    return f"{text}, {failed} failed" if failed else text


@contextmanager
def _view(count: int, *, quiet: bool) -> Iterator[_View]:
    if quiet:
        yield _Nothing()
    elif sys.stdout.isatty():
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            console=Console(highlight=False),
        ) as progress:
            yield _Bars(progress, count)
    else:
        yield _Lines()


class _Nothing:
    def show(self, image: str, found: Mapping[str, Any]) -> None:
        del image, found


class _Lines:
    """Prints a line when an image begins, and when it is over."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def show(self, image: str, found: Mapping[str, Any]) -> None:
        state = found["state"]
        if self._last.get(image) == state:
            return
        self._last[image] = state
        size = f", {size_text(found['bytes'])} in {found['blobs']} blobs" if state == "complete" else ""
        sys.stdout.write(f"{image}: {state}{size}\n")
        sys.stdout.flush()


class _Bars:
    """One bar for all images in bytes, and one for each that is under way."""

    def __init__(self, progress: Progress, count: int) -> None:
        self._progress = progress
        self._count = count
        self._whole = progress.add_task("", total=None)
        self._bars: dict[str, Any] = {}
        self._known: dict[str, Mapping[str, Any]] = {}

    def show(self, image: str, found: Mapping[str, Any]) -> None:
        self._known[image] = found
        if found["state"] in _OVER:
            if image in self._bars:
                self._progress.remove_task(self._bars.pop(image))
        else:
            if image not in self._bars:
                self._bars[image] = self._progress.add_task(image, total=None)
            self._progress.update(self._bars[image], total=found["bytes"] or None, completed=found["bytes_done"])
        self._show_whole()

    def _show_whole(self) -> None:
        over = sum(one["state"] in _OVER for one in self._known.values())
        self._progress.update(
            self._whole,
            description=f"{over} of {self._count} images",
            total=sum(one["bytes"] for one in self._known.values()) or None,
            completed=sum(one["bytes_done"] for one in self._known.values()),
        )
