"""The commands about replication: `wait`, `sync`, `backfill …` and `replication …`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from replicator.daemon.node_client import Connection

backfill_app = typer.Typer(help="Bring what is there already to a destination that joined later.", no_args_is_help=True)
replication_app = typer.Typer(help="Look into replication, and try again what waits.", no_args_is_help=True)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.", show_default=False)]
UserOption = Annotated[str | None, typer.Option(help="User name, where the nodes ask for one.")]
CaOption = Annotated[
    Path | None, typer.Option("--ca-file", help="PEM file of authorities to trust for the nodes' certificates.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
FromOption = Annotated[
    str | None,
    typer.Option("--from", help="The node to ask: account/region, or a region.", show_default="found by itself"),
]
ImageArgument = Annotated[str, typer.Argument(help="repository:tag or repository@digest.", show_default=False)]
IdArgument = Annotated[str, typer.Argument(help="Id of the backfill.", show_default=False)]
RepositoryOption = Annotated[str | None, typer.Option(help="One repository only.")]
DestinationOption = Annotated[str | None, typer.Option(help="One destination only: account/region, or registry:name.")]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 86400.0


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(wait)
    app.command()(sync)
    app.add_typer(backfill_app, name="backfill")
    app.add_typer(replication_app, name="replication")


def parse_timeout(text: str) -> float:
    """Return `90`, `90s`, `1.5m` or `2h` in seconds; raises BadParameter, up to a day."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2] or "s"] if found else -1.0
    if not 0 <= seconds <= _LONGEST:
        raise typer.BadParameter(f"expected a time such as 60s or 5m, at most 24h, got {text[:40]!r}")
    return seconds


def _connection(config: Path, user: str | None, ca_file: Path | None) -> Connection:
    from replicator.daemon.node_client import Connection  # noqa: PLC0415 - loads what it needs

    return Connection(config, os.environ, user, ca_file)


def wait(
    image: ImageArgument,
    config: ConfigOption,
    regions: Annotated[str, typer.Option(help="Regions, separated by commas; everywhere it goes, if absent.")] = "",
    timeout: Annotated[str, typer.Option(help="How long to wait: 60s, 5m.")] = "60s",
    source: FromOption = None,
    user: UserOption = None,
    ca_file: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until an image can be pulled in regions; exit 1 if it cannot in time, with the reason of each region."""
    from replicator.daemon.wait_command import Waiting, run  # noqa: PLC0415 - loads what it needs

    names = tuple(name.strip() for name in regions.split(",") if name.strip())
    waiting = Waiting(image, names, parse_timeout(timeout), source)
    sys.exit(run(_connection(config, user, ca_file), waiting, as_json=as_json))


def sync(
    config: ConfigOption,
    image: Annotated[str | None, typer.Argument(help="One image only: repository:tag or repository@digest.")] = None,
    repository: RepositoryOption = None,
    destination: DestinationOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be sent, and why.")] = False,
    source: FromOption = None,
    user: UserOption = None,
    ca_file: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare destinations with what the rules say, and bring there what is missing; exit 1 if something failed."""
    from replicator.daemon.sync_command import Syncing, run  # noqa: PLC0415 - loads what it needs

    syncing = Syncing(image, repository, destination, source, dry_run)
    sys.exit(run(_connection(config, user, ca_file), syncing, as_json=as_json))


@backfill_app.command("start")
def start_backfill(
    config: ConfigOption,
    destination: Annotated[str, typer.Option(help="account/region, or registry:name.", show_default=False)],
    repository: RepositoryOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show how far it is until it is over.")] = False,
    source: FromOption = None,
    user: UserOption = None,
    ca_file: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start to bring everything that the rules send to a destination, or one repository of it."""
    from replicator.daemon.backfill_command import start  # noqa: PLC0415 - loads what it needs

    connection = _connection(config, user, ca_file)
    sys.exit(start(connection, source, destination, repository, wait=follow, as_json=as_json))


@backfill_app.command("list")
def list_backfills(
    config: ConfigOption,
    source: FromOption = None,
    user: UserOption = None,
    ca_file: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the backfills that are not over, or ended in the last 90 days."""
    from replicator.daemon.backfill_command import show_all  # noqa: PLC0415 - loads what it needs

    sys.exit(show_all(_connection(config, user, ca_file), source, as_json=as_json))


@backfill_app.command("show")
def show_backfill(
    backfill_id: IdArgument,
    config: ConfigOption,
    source: FromOption = None,
    user: UserOption = None,
    ca_file: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far a backfill is, and which images failed."""
    from replicator.daemon.backfill_command import show  # noqa: PLC0415 - loads what it needs

    sys.exit(show(_connection(config, user, ca_file), source, backfill_id, as_json=as_json))


@backfill_app.command("stop")
def stop_backfill(
    backfill_id: IdArgument,
    config: ConfigOption,
    source: FromOption = None,
    user: UserOption = None,
    ca_file: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop a backfill; images that are under way go on to their end."""
    from replicator.daemon.backfill_command import stop  # noqa: PLC0415 - loads what it needs

    sys.exit(stop(_connection(config, user, ca_file), source, backfill_id, as_json=as_json))


@replication_app.command()
def retry(
    config: ConfigOption,
    repository: RepositoryOption = None,
    destination: DestinationOption = None,
    source: FromOption = None,
    user: UserOption = None,
    ca_file: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try at once what waits for its next attempt, on every node of the configuration or one."""
    from replicator.daemon.replication_command import retry as run  # noqa: PLC0415 - loads what it needs

    sys.exit(run(_connection(config, user, ca_file), source, repository, destination, as_json=as_json))


@replication_app.command()
def conflicts(
    config: ConfigOption,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The latest so many of each node.")] = 20,
    source: FromOption = None,
    user: UserOption = None,
    ca_file: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show tags that two nodes had written without knowing of each other."""
    from replicator.daemon.replication_command import conflicts as run  # noqa: PLC0415 - loads what it needs

    sys.exit(run(_connection(config, user, ca_file), source, limit, as_json=as_json))


@replication_app.command("image")
def show_image(
    image: ImageArgument,
    config: ConfigOption,
    source: FromOption = None,
    user: UserOption = None,
    ca_file: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far the replication of an image is, destination by destination."""
    from replicator.daemon.replication_command import show_image as run  # noqa: PLC0415 - loads what it needs

    sys.exit(run(_connection(config, user, ca_file), source, image, as_json=as_json))
