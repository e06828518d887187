"""The names that address things: repository, tag, account, region, node.

The grammar is the distribution specification's ("Pulling manifests"); a name that parses has no way to leave its
place in a URL, a file system or a log line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from replicator.core.errors import InvalidInput, InvalidName, InvalidTag

RepositoryName = NewType("RepositoryName", str)
Tag = NewType("Tag", str)
AccountId = NewType("AccountId", str)
Region = NewType("Region", str)

MAX_REPOSITORY_LENGTH = 256
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_REGION = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True, order=True)
class NodeId:
    """The registry of one account in one region; written `123456789012/eu-west-1`."""

    account: AccountId
    region: Region

    def __str__(self) -> str:
        return f"{self.account}/{self.region}"


def parse_repository(text: str) -> RepositoryName:
    """Return `text` as a repository name; raise InvalidName when it breaks the grammar or exceeds 256 characters."""
    if len(text) > MAX_REPOSITORY_LENGTH or _REPOSITORY.fullmatch(text) is None:
        raise InvalidName(
            "expected lower-case path components of letters and digits, separated by '.', '_', '__' or '-',"
            f" at most {MAX_REPOSITORY_LENGTH} characters, got {_shown(text)}"
        )
    return RepositoryName(text)


def parse_tag(text: str) -> Tag:
    """Return `text` as a tag; raise InvalidTag when it breaks the grammar."""
    if _TAG.fullmatch(text) is None:
        raise InvalidTag(
            f"expected a tag of 1 to 128 letters, digits, '_', '.' or '-', not starting with '.' or '-',"
            f" got {_shown(text)}"
        )
    return Tag(text)


def parse_account(text: str) -> AccountId:
    """Return `text` as an account id; raise InvalidInput unless it is 12 digits."""
    if _ACCOUNT.fullmatch(text) is None:
        raise InvalidInput(f"expected an account id of 12 digits, got {_shown(text)}")
    return AccountId(text)


def parse_region(text: str) -> Region:
    """Return `text` as a region name; raise InvalidInput unless it looks like `eu-west-1`."""
    if len(text) > 40 or _REGION.fullmatch(text) is None:
        raise InvalidInput(f"expected a region such as eu-west-1, got {_shown(text)}")
    return Region(text)


def parse_node(text: str) -> NodeId:
    """Return `account/region` as a node id; raise InvalidInput when a part is malformed."""
    account, _, region = text.partition("/")
    return NodeId(parse_account(account), parse_region(region))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
