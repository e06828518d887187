"""The commands about the pull-through cache: `replicator cache …`."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from replicator.daemon.asking import Asking  # noqa: TC001 - the annotations are read
from replicator.daemon.replication_cli import asks_nodes

cache_app = typer.Typer(help="Look into the cache, fill it, and make room in it.", no_args_is_help=True)

_NAMES = "docker-hub/library/nginx:1.27, or the upstream's name: nginx:1.27, quay.io/org/app."
ImagesArgument = Annotated[list[str], typer.Argument(metavar="IMAGE", help=_NAMES, show_default=False)]
SomeImagesArgument = Annotated[list[str] | None, typer.Argument(metavar="IMAGE", help=_NAMES, show_default=False)]
WholeRepositoryOption = Annotated[
    str | None, typer.Option("--repository", help="All that is cached in a repository: docker-hub/library/nginx.")
]


@cache_app.command("ls")
@asks_nodes
def list_images(
    asking: Asking,
    prefix: Annotated[str, typer.Argument(help="Only repositories whose names begin so.", show_default=False)] = "",
) -> int:
    """Show what is cached: size, age, freshness, and what the last check said."""
    from replicator.daemon.cache_command import list_images as run  # noqa: PLC0415 - loads what it needs

    return run(asking, prefix)


@cache_app.command()
@asks_nodes
def refresh(asking: Asking, images: SomeImagesArgument = None, repository: WholeRepositoryOption = None) -> int:
    """Check cached tags with their upstream now; exit 1 if a check failed."""
    from replicator.daemon.cache_command import refresh as run  # noqa: PLC0415 - loads what it needs

    return run(asking, images or [], repository)


@cache_app.command()
@asks_nodes
def purge(
    asking: Asking,
    images: SomeImagesArgument = None,
    repository: WholeRepositoryOption = None,
    force: Annotated[bool, typer.Option("--force", help="Also what is pinned.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove cached images; the next pull fetches them again."""
    from replicator.daemon.cache_command import Purging  # noqa: PLC0415 - loads what it needs
    from replicator.daemon.cache_command import purge as run  # noqa: PLC0415 - loads what it needs

    purging = Purging(tuple(images or ()), repository, force)
    if not yes:
        _confirm(purging.text)
    return run(asking, purging)


@cache_app.command()
@asks_nodes
def pin(asking: Asking, images: ImagesArgument) -> int:
    """Keep images whatever space is needed; a pinned tag keeps what it points to at the time."""
    from replicator.daemon.cache_command import set_pins  # noqa: PLC0415 - loads what it needs

    return set_pins(asking, images, pinned=True)


@cache_app.command()
@asks_nodes
def unpin(asking: Asking, images: ImagesArgument) -> int:
    """Take pins back."""
    from replicator.daemon.cache_command import set_pins  # noqa: PLC0415 - loads what it needs

    return set_pins(asking, images, pinned=False)


@cache_app.command()
@asks_nodes
def warm(
    asking: Asking,
    images: SomeImagesArgument = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A list of images, one a line; - for standard input.")
    ] = None,
    manifests: Annotated[
        Path | None, typer.Option("--manifests", help="A folder of Kubernetes manifests (YAML, JSON).")
    ] = None,
    platform: Annotated[
        list[str] | None,
        typer.Option(help="linux/amd64; may be given again. Those of the rule, or all, if absent.", show_default=False),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Images at the same time.")] = 4,
) -> int:
    """Fetch whole images before anybody pulls them, with progress; exit 1 if one could not be fetched."""
    from replicator.daemon.cache_warm_command import Warming, run  # noqa: PLC0415 - loads what it needs

    warming = Warming(tuple(images or ()), file, manifests, tuple(platform or ()), concurrency)
    return run(asking, warming)


@cache_app.command()
@asks_nodes
def explain(asking: Asking, image: Annotated[str, typer.Argument(help=_NAMES, show_default=False)]) -> int:
    """Say which rule matches, where an image would come from, how fresh it is, and what the last check said."""
    from replicator.daemon.cache_command import explain as run  # noqa: PLC0415 - loads what it needs

    return run(asking, image)


@cache_app.command()
@asks_nodes
def status(asking: Asking) -> int:
    """Show how the upstreams are, and how much space the cache takes."""
    from replicator.daemon.cache_command import status as run  # noqa: PLC0415 - loads what it needs

    return run(asking)


def _confirm(what: str) -> None:
    """Ask whoever sits there; where nobody does, raise BadParameter."""
    if not sys.stdin.isatty():
        raise typer.BadParameter("expected --yes, where nobody can be asked")
    typer.confirm(f"Purge {what}?", abort=True, err=True)
