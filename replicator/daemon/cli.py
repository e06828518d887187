"""The command line: `serve`, `config …`, `status`, and the commands about replication and the cache.

Exit codes: 0 done, 1 it could not be done (the reason is on standard error), 2 wrong usage.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from replicator import __version__
from replicator.core.errors import ReplicatorError
from replicator.daemon.cache_cli import cache_app
from replicator.daemon.events_cli import events_app
from replicator.daemon.policy_cli import policy_app
from replicator.daemon.replication_cli import CaOption, ConfigOption, UserOption, register

app = typer.Typer(
    help="A container registry in regional nodes, with replication and a pull-through cache.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Check a configuration, or print the schema for editors.", no_args_is_help=True)
app.add_typer(config_app, name="config")


def main() -> None:
    """Run the command line; every expected failure is one line on standard error and exit code 1."""
    try:
        app()
    except ReplicatorError as error:
        sys.stderr.write(f"replicator: {error}\n")
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"replicator {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run a container registry in regional nodes, with replication and a pull-through cache."""


@app.command()
def serve(config: ConfigOption) -> None:
    """Run the nodes of a configuration until SIGTERM or SIGINT."""
    from replicator.daemon.serve import run  # noqa: PLC0415 - each command loads what it needs

    sys.exit(run(config, os.environ))


@config_app.command()
def check(
    path: Annotated[Path, typer.Argument(help="The configuration file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the problems as JSON.")] = False,
    connect: Annotated[
        bool, typer.Option("--connect", help="Also ask peers and registries if they accept us.")
    ] = False,
) -> None:
    """Report every problem of a configuration with its key and line; exit 1 if there is an error."""
    from replicator.config.loader import check_settings  # noqa: PLC0415 - each command loads what it needs
    from replicator.config.problems import Severity  # noqa: PLC0415 - each command loads what it needs

    problems = check_settings(path, os.environ)
    if connect and all(problem.severity is not Severity.ERROR for problem in problems):
        from replicator.daemon.connection_check import check_connections  # noqa: PLC0415 - only where it is wanted

        problems += check_connections(path, os.environ)
    failed = any(problem.severity is Severity.ERROR for problem in problems)
    if as_json:
        typer.echo(json.dumps([asdict(problem) for problem in problems]))
    else:
        for problem in problems:
            typer.echo(f"{problem.severity}: {problem}", err=problem.severity is Severity.ERROR)
        if not failed:
            typer.echo(f"{path}: ok")
    sys.exit(1 if failed else 0)


@config_app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration."""
    from replicator.config.schema import json_schema  # noqa: PLC0415 - each command loads what it needs

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def status(
    config: ConfigOption,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    user: UserOption = None,
    ca_file: CaOption = None,
) -> None:
    """Show the nodes of a running daemon: storage, queues, lag and cache.

    Where the nodes have users, the password comes from the environment variable REPLICATOR_PASSWORD; where they have
    identities and no user is named, AWS credentials are found where the aws command finds them.
    """
    from replicator.daemon.status_command import run  # noqa: PLC0415 - each command loads what it needs

    sys.exit(run(config, os.environ, user=user, as_json=as_json, ca_file=ca_file))


@app.command()
def login(
    registry: Annotated[str | None, typer.Option(help="Registry to log in to.", show_default="that of the URL")] = None,
    endpoint_url: Annotated[
        str | None,
        typer.Option("--endpoint-url", help="URL of the node.", show_default="AWS_ENDPOINT_URL_ECR, AWS_ENDPOINT_URL"),
    ] = None,
    region: Annotated[str | None, typer.Option(help="Region of the registry.")] = None,
    profile: Annotated[str | None, typer.Option(help="Profile of the AWS credentials.")] = None,
    username: Annotated[str | None, typer.Option(help="User name, instead of AWS credentials.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    auth_file: Annotated[
        Path | None, typer.Option("--auth-file", help="Where to keep it.", show_default="where docker or podman look")
    ] = None,
    ca_file: CaOption = None,
) -> None:
    """Log docker, podman and skopeo in to a node, with AWS credentials or a user name."""
    from replicator.daemon.login_command import Wanted, run  # noqa: PLC0415 - each command loads what it needs
    from replicator.telemetry.system_clock import SystemClock  # noqa: PLC0415 - each command loads what it needs

    if (username is None) is password_stdin:
        raise typer.BadParameter("expected --username and --password-stdin together")
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    wanted = Wanted(registry, endpoint_url, region, profile, username, password, auth_file, ca_file)
    typer.echo(run(wanted, os.environ, SystemClock()))


register(app)
app.add_typer(cache_app, name="cache")
app.add_typer(events_app, name="events")
app.add_typer(policy_app, name="policy")
