"""Which registries the credential programs know, and whom to ask for their tokens.

A small YAML file says so: `~/.config/replicator/credentials.yaml`, or what `REPLICATOR_CREDENTIALS` names.

    registries:
      registry.example.com:5000:
        region: us-east-1
        endpoint_url: https://registry.example.com:5000
        profile: dev

Hosts of Amazon's own form need no entry. No other host is known: credentials are used for nobody who was not named.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from replicator.config.base import BaseUrl, Host, Model, Name, RegionName, is_loopback
from replicator.config.document import MAX_BYTES, DocumentError, read_document
from replicator.config.explain import explain
from replicator.config.problems import dotted
from replicator.core.errors import ConfigurationError
from replicator.core.names import Region

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT = "REPLICATOR_CREDENTIALS"
_AMAZON = re.compile(r"[0-9]{12}\.dkr\.ecr(?:-fips)?\.([a-z0-9-]{1,40})\.amazonaws\.com(?:\.cn)?")


class TokenSettings(Model):
    """Where the tokens of a registry come from."""

    region: RegionName
    """Region of the registry."""
    endpoint_url: BaseUrl | None = None
    """Address of the ECR API; Amazon's, if absent."""
    profile: Name | None = None
    """Profile of the AWS credentials; the usual one, if absent."""


class CredentialSettings(Model):
    """The registries that are known."""

    registries: Annotated[dict[Host, TokenSettings], Field(max_length=1000)] = Field(default_factory=dict)
    """By host and port, as in names of images."""

    def find(self, registry: str) -> TokenSettings | None:
        """Return where a registry's tokens come from; None for one that is not known."""
        found = self.registries.get(registry)
        if found is not None:
            return found
        amazon = _AMAZON.fullmatch(registry)
        return None if amazon is None else TokenSettings(region=Region(amazon[1]))


def settings_path(environ: Mapping[str, str]) -> Path:
    """Return where the file is."""
    if environ.get(ENVIRONMENT):
        return Path(environ[ENVIRONMENT])
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    return Path(home) / "replicator" / "credentials.yaml"


def load_credential_settings(path: Path, *, must_exist: bool = False) -> CredentialSettings:
    """Return what a file says, nothing when there is no file; raises ConfigurationError."""
    content: object = None
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        content = read_document(data.decode()).data
        settings = CredentialSettings.model_validate(content)
    except FileNotFoundError as error:
        if must_exist:
            raise ConfigurationError(f"{path} does not exist") from error
        return CredentialSettings()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or 'input/output error'}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text") from error
    except DocumentError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {_first_problem(error, content)}") from error
    for registry, one in settings.registries.items():
        if one.endpoint_url is not None:
            check_endpoint(one.endpoint_url, f"{path}: {registry}: ")
    return settings


def _first_problem(error: ValidationError, content: object) -> str:
    first = error.errors(include_url=False)[0]
    if first["type"] == "extra_forbidden":
        return f"{'.'.join(map(str, first['loc']))}: unknown key"
    found = explain(first, content)
    return f"{dotted(found.path)}: {found.message}" if found.path else found.message


def check_endpoint(url: str, where: str = "") -> None:
    """Raise ConfigurationError when a token would cross a network in clear."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ConfigurationError(f"{where}a token would cross the network in clear: expected https://, got {url}")


def registry_of(key: str) -> str:
    """Return the host of a key under which clients know a registry: `https://host/v2/` is `host`."""
    return (key.partition("://")[2] or key).partition("/")[0].strip().lower()
