"""The commands about access: `replicator policy …`."""

from __future__ import annotations

from typing import Annotated

import typer

from replicator.daemon.asking import Asking  # noqa: TC001 - the annotations are read
from replicator.daemon.replication_cli import asks_nodes

policy_app = typer.Typer(help="See who may do what, and why.", no_args_is_help=True)


@policy_app.callback()
def _policy() -> None:
    """Have `explain` be a command of its own, although it is the only one."""


@policy_app.command()
@asks_nodes
def explain(
    asking: Asking,
    principal: Annotated[
        str, typer.Argument(help="A user's name, the ARN of a principal, or anonymous.", show_default=False)
    ],
    action: Annotated[str, typer.Argument(help="An action, such as ecr:BatchGetImage.", show_default=False)],
    repository: Annotated[
        str, typer.Argument(help="A repository's name; * for what is asked of the registry.", show_default=False)
    ],
) -> int:
    """Show whether somebody may do something, and which statement decides; exit 1 if not."""
    from replicator.daemon.policy_command import explain as run  # noqa: PLC0415 - loads what it needs

    return run(asking, principal, action, repository)
