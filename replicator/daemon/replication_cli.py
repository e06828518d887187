"""The commands about replication: `wait`, `sync`, `backfill …` and `replication …`."""

from __future__ import annotations

import math
import os
import sys
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.daemon.asking import Asking

if TYPE_CHECKING:
    from collections.abc import Callable

backfill_app = typer.Typer(help="Bring what is there already to a destination that joined later.", no_args_is_help=True)
replication_app = typer.Typer(help="Look into replication, and try again what waits.", no_args_is_help=True)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.", show_default=False)]
UserOption = Annotated[
    str | None, typer.Option(help="User name, where the nodes ask for one; AWS credentials, if absent.")
]
CaOption = Annotated[
    Path | None, typer.Option("--ca-file", help="PEM file of authorities to trust for the nodes' certificates.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from", "--node", help="The node to ask: account/region, or a region.", show_default="found by itself"
    ),
]
ImageArgument = Annotated[str, typer.Argument(help="repository:tag or repository@digest.", show_default=False)]
IdArgument = Annotated[str, typer.Argument(help="Id of the backfill.", show_default=False)]
RepositoryOption = Annotated[str | None, typer.Option(help="One repository only.")]
DestinationOption = Annotated[str | None, typer.Option(help="One destination only: account/region, or registry:name.")]

_MAX_TIMEOUT = 86400.0


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(wait)
    app.command()(sync)
    app.add_typer(backfill_app, name="backfill")
    app.add_typer(replication_app, name="replication")


def parse_timeout(text: str) -> float:
    """Return a duration as the configuration has them, or plain seconds; raises BadParameter, up to a day."""
    from replicator.config.units import parse_duration  # noqa: PLC0415 - loads what it needs

    given = text.strip()
    try:
        seconds = parse_duration(given if given[-1:].isalpha() else f"{given}s")
    except ValueError:
        seconds = math.inf
    if seconds > _MAX_TIMEOUT:
        raise typer.BadParameter(f"expected a time such as 60s or 5m, at most 24h, got {text[:40]!r}")
    return seconds


def asks_nodes(command: Callable[..., int]) -> Callable[..., None]:
    """Give a command the options that all have which ask nodes; it gets them as an Asking, and returns the status."""

    def run(
        config: ConfigOption,
        source: FromOption = None,
        user: UserOption = None,
        ca_file: CaOption = None,
        as_json: JsonOption = False,
        **own: object,
    ) -> None:
        sys.exit(command(Asking(config, os.environ, user, ca_file, source, as_json), **own))

    _, *particular = signature(command, eval_str=True).parameters.values()
    first, *rest, _ = signature(run, eval_str=True).parameters.values()
    together = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in (first, *particular, *rest)]
    run.__dict__["__signature__"] = Signature(together)  # what typer makes options of
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


@asks_nodes
def wait(
    asking: Asking,
    image: ImageArgument,
    regions: Annotated[str, typer.Option(help="Regions, separated by commas; everywhere it goes, if absent.")] = "",
    timeout: Annotated[str, typer.Option(help="How long to wait: 60s, 5m.")] = "60s",
) -> int:
    """Wait until an image can be pulled in regions; exit 1 if it cannot in time, with the reason of each region."""
    from replicator.daemon.wait_command import Waiting, run  # noqa: PLC0415 - loads what it needs

    names = tuple(name.strip() for name in regions.split(",") if name.strip())
    waiting = Waiting(image, names, parse_timeout(timeout))
    return run(asking, waiting)


@asks_nodes
def sync(
    asking: Asking,
    image: Annotated[str | None, typer.Argument(help="One image only: repository:tag or repository@digest.")] = None,
    repository: RepositoryOption = None,
    destination: DestinationOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be sent, and why.")] = False,
) -> int:
    """Compare destinations with what the rules say, and bring there what is missing; exit 1 if something failed."""
    from replicator.daemon.sync_command import Syncing, run  # noqa: PLC0415 - loads what it needs

    syncing = Syncing(image, repository, destination, dry_run)
    return run(asking, syncing)


@backfill_app.command("start")
@asks_nodes
def start_backfill(
    asking: Asking,
    destination: Annotated[str, typer.Option(help="account/region, or registry:name.", show_default=False)],
    repository: RepositoryOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show how far it is until it is over.")] = False,
) -> int:
    """Start to bring everything that the rules send to a destination, or one repository of it."""
    from replicator.daemon.backfill_command import start  # noqa: PLC0415 - loads what it needs

    return start(asking, destination, repository, wait=follow)


@backfill_app.command("list")
@asks_nodes
def list_backfills(asking: Asking) -> int:
    """Show the backfills that are not over, or ended in the last 90 days."""
    from replicator.daemon.backfill_command import show_all  # noqa: PLC0415 - loads what it needs

    return show_all(asking)


@backfill_app.command("show")
@asks_nodes
def show_backfill(asking: Asking, backfill_id: IdArgument) -> int:
    """Show how far a backfill is, and which images failed."""
    from replicator.daemon.backfill_command import show  # noqa: PLC0415 - loads what it needs

    return show(asking, backfill_id)


@backfill_app.command("stop")
@asks_nodes
def stop_backfill(asking: Asking, backfill_id: IdArgument) -> int:
    """Stop a backfill; images that are under way go on to their end."""
    from replicator.daemon.backfill_command import stop  # noqa: PLC0415 - loads what it needs

    return stop(asking, backfill_id)


@replication_app.command()
@asks_nodes
def retry(asking: Asking, repository: RepositoryOption = None, destination: DestinationOption = None) -> int:
    """Try at once what waits for its next attempt, on every node of the configuration or one."""
    from replicator.daemon.replication_command import retry as run  # noqa: PLC0415 - loads what it needs

    return run(asking, repository, destination)


@replication_app.command()
@asks_nodes
def conflicts(
    asking: Asking,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The latest so many of each node.")] = 20,
) -> int:
    """Show tags that two nodes had written without knowing of each other."""
    from replicator.daemon.replication_command import conflicts as run  # noqa: PLC0415 - loads what it needs

    return run(asking, limit)


@replication_app.command("image")
@asks_nodes
def show_image(asking: Asking, image: ImageArgument) -> int:
    """Show how far the replication of an image is, destination by destination."""
    from replicator.daemon.replication_command import show_image as run  # noqa: PLC0415 - loads what it needs

    return run(asking, image)
