"""Following a backfill or a sync until it is over: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from replicator.daemon.amounts import size_text
from replicator.telemetry.system_clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from replicator.daemon.node_client import NodeClient

LOOK_EVERY = 0.5
_TERMINAL = {"COMPLETE", "FAILED", "STOPPED"}
_PAGE = 1000


class _View(Protocol):
    def show(self, backfill: Mapping[str, Any]) -> None:
        """Show how far it is."""
        ...


def backfill_path(backfill_id: str) -> str:
    """Return where a backfill is found, whatever somebody took for its id."""
    return f"backfills/{quote(backfill_id, safe='')}"


async def follow(client: NodeClient, backfill_id: str, *, quiet: bool = False) -> Mapping[str, Any]:
    """Return a backfill once it is over, having shown how far it was; raises NodeFailed."""
    clock = SystemClock()
    with _view(quiet=quiet) as view:
        while True:
            backfill = await client.get(backfill_path(backfill_id))
            view.show(backfill)
            if backfill["state"] in _TERMINAL:
                return backfill
            await clock.sleep(LOOK_EVERY)


async def failed_images(client: NodeClient, backfill_id: str) -> list[Mapping[str, Any]]:
    """Return the images of a backfill that failed, a page of them at most; raises NodeFailed."""
    page = await client.get(f"{backfill_path(backfill_id)}/images", status="FAILED", limit=str(_PAGE))
    return list(page["images"])


def summary(backfill: Mapping[str, Any]) -> str:
    """Return how far a backfill is, as people read it."""
    progress = backfill["progress"]
    failure = f" ({backfill['failure']})" if backfill["failure"] else ""
    if progress is None:
        return f"{backfill['state']}{failure}"
    parts = [f"{progress['complete']} of {progress['total']} images"]
    parts += [f"{progress[name]} {name}" for name in ("failed", "stopped") if progress[name]]
    parts += [size_text(progress["bytes"]), *progress["failure_codes"]]
    return f"{backfill['state']}{failure}: {', '.join(parts)}"


@contextmanager
def _view(*, quiet: bool) -> Iterator[_View]:
    if quiet:
        yield _Nothing()
    elif sys.stdout.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(highlight=False)) as progress:
            yield _Bar(progress)
    else:
        yield _Lines()


class _Nothing:
    def show(self, backfill: Mapping[str, Any]) -> None:
        del backfill


class _Lines:
    """Prints a line whenever something has changed."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, backfill: Mapping[str, Any]) -> None:
        line = summary(backfill)
        if line != self._last:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            self._last = line


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def show(self, backfill: Mapping[str, Any]) -> None:
        known = backfill["progress"]
        self._progress.update(self._task, description=summary(backfill))
        if known is not None:
            done = known["complete"] + known["failed"] + known["stopped"]
            self._progress.update(self._task, total=known["total"], completed=done)
