"""The commands about events: `replicator events …`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from replicator.daemon.asking import Asking  # noqa: TC001 - the annotations are read
from replicator.daemon.replication_cli import asks_nodes

events_app = typer.Typer(help="See what is told of images, and what could not be told.", no_args_is_help=True)

SinkOption = Annotated[str | None, typer.Option(help="One sink only.")]
EventOption = Annotated[str | None, typer.Option("--event", help="One event only, by its id.")]
LimitOption = Annotated[int, typer.Option(min=1, max=500, help="So many at most.")]


@events_app.command()
@asks_nodes
def sinks(asking: Asking) -> int:
    """Show the sinks of a node, and how many events wait for each or were given up."""
    from replicator.daemon.events_command import show_sinks  # noqa: PLC0415 - loads what it needs

    return show_sinks(asking)


@events_app.command("list")
@asks_nodes
def list_events(asking: Asking, limit: LimitOption = 20) -> int:
    """Show the latest events that are kept, with those who are still to get them."""
    from replicator.daemon.events_command import show_latest  # noqa: PLC0415 - loads what it needs

    return show_latest(asking, limit)


@events_app.command()
@asks_nodes
def dead(asking: Asking, sink: SinkOption = None, limit: LimitOption = 100) -> int:
    """Show events that were given up, and why."""
    from replicator.daemon.events_command import show_dead  # noqa: PLC0415 - loads what it needs

    return show_dead(asking, sink, limit)


@events_app.command()
@asks_nodes
def retry(asking: Asking, sink: SinkOption = None, event: EventOption = None) -> int:
    """Send given-up events again, and what waits for its next attempt at once."""
    from replicator.daemon.events_command import retry as run  # noqa: PLC0415 - loads what it needs

    return run(asking, sink, event)


@events_app.command()
@asks_nodes
def discard(
    asking: Asking,
    sink: SinkOption = None,
    event: EventOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Drop given-up events: of a sink, one, or all."""
    from replicator.daemon.events_command import discard as run  # noqa: PLC0415 - loads what it needs

    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("expected --yes, where nobody can be asked")
        typer.confirm("Drop events that were given up?", abort=True, err=True)
    return run(asking, sink, event)
