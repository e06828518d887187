"""What every part of the configuration is made of: the strict frozen model, and the common kinds of value.

Values never come from guesses: text is not read as a number, `yes` is not true, an unknown key is an error.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationInfo, WithJsonSchema

from replicator.config.units import shown
from replicator.core.errors import InvalidInput
from replicator.core.names import AccountId, NodeId, Region, parse_account, parse_region
from replicator.core.platforms import Platform, parse_platform

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*")
_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+)):([0-9]{1,5})")
_MAX_PORT = 65535
_MAX_HOST = 253
_T = TypeVar("_T")


class Model(BaseModel):
    """A frozen section of the configuration in which every key is known."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True, allow_inf_nan=False
    )


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port to listen on; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def is_wildcard(self) -> bool:
        """Tell whether it stands for every address of the machine."""
        address = _ip_address(self.host)
        return address is not None and address.is_unspecified

    def covers(self, host: str, port: int) -> bool:
        """Tell whether a client that connects to `host`:`port` could reach this listener."""
        if port != self.port or port == 0:
            return False
        if self.host == host or (self.is_loopback and is_loopback(host)):
            return True
        return self.is_wildcard and (is_loopback(host) or _is_wildcard(host))

    def clashes_with(self, other: Address) -> bool:
        """Tell whether both cannot be bound at the same time."""
        if self.port != other.port or self.port == 0:
            return False
        return self.host == other.host or self.is_wildcard or other.is_wildcard


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine's loopback interface."""
    address = _ip_address(host)
    return host == "localhost" if address is None else address.is_loopback


def _is_wildcard(host: str) -> bool:
    address = _ip_address(host)
    return address is not None and address.is_unspecified


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def parse_address(value: object) -> Address:
    """Return `127.0.0.1:5001` or `[::1]:5001` as an address; raise ValueError when it is anything else."""
    found = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found[3]) > _MAX_PORT:
        raise ValueError(f"expected host:port, got {shown(value)}")
    host = (found[1] or found[2]).lower()
    if found[1] and _ip_address(host) is None:
        raise ValueError(f"expected [IPv6 address]:port, got {shown(value)}")
    _check_host(host, value)
    return Address(host, int(found[3]))


def parse_host(value: object) -> str:
    """Return `host` or `host:port` in lower case; raise ValueError when it is anything else."""
    if not isinstance(value, str):
        raise ValueError(f"expected a host name, got {shown(value)}")  # noqa: TRY004 - pydantic reports ValueError
    if _LISTEN.fullmatch(value):
        return str(parse_address(value))
    _check_host(value, value)
    return value.lower()


def _check_host(host: str, value: object) -> None:
    if _ip_address(host) is not None:
        return
    digits = host.replace(".", "").isdecimal()
    if digits or len(host) > _MAX_HOST or _HOST.fullmatch(host) is None:
        raise ValueError(f"expected a host name or address, got {shown(value)}")


def parse_base_url(value: object) -> str:
    """Return the URL of a server without a trailing slash; raise ValueError unless it is `http[s]://host[:port]`.

    A URL with a user name or password is refused without being quoted.
    """
    if not isinstance(value, str):
        raise ValueError(f"expected a URL, got {shown(value)}")  # noqa: TRY004 - pydantic reports ValueError
    if "@" in value:
        raise ValueError("expected a URL without a user name and password")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"expected http://host or https://host, got {shown(value)}") from error
    if parts.scheme not in {"http", "https"} or not host or not value.isprintable():
        raise ValueError(f"expected http://host or https://host, got {shown(value)}")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(f"expected a URL without a path, got {shown(value)}")
    _check_host(host, value)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def url_endpoint(url: str) -> tuple[str, int]:
    """Return the host and port that a parsed base URL leads to."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def resolve_path(value: str, info: ValidationInfo) -> Path:
    """Return a path relative to the directory of the configuration file, which the loader passes as context."""
    context = info.context
    directory = context.get("directory") if isinstance(context, Mapping) else None
    path = Path(value).expanduser() if value.startswith("~") else Path(value)
    return path if directory is None else Path(directory) / path


def _file_path(value: object, info: ValidationInfo) -> Path:
    return resolve_path(_plain_path(value), info)


def _plain_path(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f"expected a path, got {shown(value)}")
    return value


def checked(parse: Callable[[str], _T]) -> Callable[[object], _T]:
    """Return a validator out of one of the core's parsers, whose errors pydantic does not know."""

    def validate(value: object) -> _T:
        if not isinstance(value, str):
            raise ValueError(f"expected text, got {shown(value)}")  # noqa: TRY004 - pydantic reports ValueError
        try:
            return parse(value)
        except InvalidInput as error:
            raise ValueError(str(error)) from error

    return validate


def _account(value: object) -> AccountId:
    # Twelve digits without quotes are a number to YAML.
    return checked(parse_account)(str(value) if type(value) is int else value)


Account = Annotated[
    AccountId,
    BeforeValidator(_account),
    WithJsonSchema({"type": ["string", "integer"], "pattern": "^[0-9]{12}$", "examples": ["111122223333"]}),
]
RegionName = Annotated[
    Region,
    BeforeValidator(checked(parse_region)),
    WithJsonSchema({"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$", "examples": ["eu-west-1"]}),
]
Listen = Annotated[
    Address, BeforeValidator(parse_address), WithJsonSchema({"type": "string", "examples": ["127.0.0.1:5001"]})
]
Host = Annotated[str, BeforeValidator(parse_host), WithJsonSchema({"type": "string", "examples": ["auth.docker.io"]})]
BaseUrl = Annotated[
    str,
    BeforeValidator(parse_base_url),
    WithJsonSchema({"type": "string", "pattern": "^https?://", "examples": ["https://registry-1.docker.io"]}),
]
FilePath = Annotated[Path, BeforeValidator(_file_path), WithJsonSchema({"type": "string"})]
"""A path relative to the directory of the configuration file."""
WorkingPath = Annotated[
    Path, BeforeValidator(lambda value: Path(_plain_path(value))), WithJsonSchema({"type": "string"})
]
"""A path relative to the directory the daemon was started in."""
Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
Rate = Annotated[float, Strict(), Field(gt=0)]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_REGISTRY_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
_REPOSITORY_PATTERN = r"^[a-z0-9._/*-]+$"
_TAG_PATTERN = r"^[A-Za-z0-9._*-]+$"
REPOSITORY_START = r"^[a-z0-9._-][a-z0-9._/-]*$"
REPOSITORY_PART = r"^([a-z0-9][a-z0-9._/-]*)?$"
PATTERN_WORDS = {
    _NAME: "a name of letters, digits, '.', '_' and '-'",
    _REGISTRY_NAME: "a name of at most 63 lower-case letters, digits and '-'",
    _REPOSITORY_PATTERN: "a repository name of lower-case letters, digits and '._-/', with '*' for any characters",
    _TAG_PATTERN: "a tag of letters, digits and '._-', with '*' for any characters",
    REPOSITORY_START: "the start of a repository name, of lower-case letters, digits and '._-/', taken literally",
    REPOSITORY_PART: "the start of a repository name, of lower-case letters, digits and '._-/', or nothing",
}
"""What people are told instead of a pattern that their text does not match."""

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=_NAME)]
RegistryName = Annotated[str, Field(pattern=_REGISTRY_NAME)]
RepositoryPattern = Annotated[str, Field(min_length=1, max_length=256, pattern=_REPOSITORY_PATTERN)]
TagPattern = Annotated[str, Field(min_length=1, max_length=128, pattern=_TAG_PATTERN)]
PlatformText = Annotated[
    Platform,
    BeforeValidator(checked(parse_platform)),
    WithJsonSchema({"type": "string", "examples": ["linux/arm64/v8"]}),
]


class NodeRef(Model):
    """A node by its account and region."""

    account: Account
    """Account of the node: 12 digits."""
    region: RegionName
    """Region of the node."""

    @property
    def id(self) -> NodeId:
        """The node's name."""
        return NodeId(self.account, self.region)
