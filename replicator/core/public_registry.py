"""The public registry of an account: the repositories below its alias, from which everybody may pull (ECR §16).

A public repository is a repository of the node like any other, stored under `alias/name`. What is below the alias is
public and nothing else is, so that a name alone tells which of the two it is: no private repository can be made there,
and an alias is only taken where none is. The API of ECR Public leaves the alias out of its names; pulls and pushes
write it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import InvalidInput
from replicator.core.names import AccountId, RepositoryName
from replicator.core.policy import Effect, Patterns, Policy, PolicyKind, Statement

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "public.ecr.aws"
"""Where Amazon has public registries; tokens are asked for in its name wherever a registry is."""

BEARER_TOKEN_ACTION = "sts:GetServiceBearerToken"  # noqa: S105 - an action
"""What one needs, besides the actions of ECR Public, to get a token for it and to push with one."""

MAX_ALIAS = 50
_ALIAS = re.compile(r"[a-z][a-z0-9]+(?:[._-][a-z0-9]+)*")
_NAME = re.compile(r"(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*")
_ARN = re.compile(r"arn:aws[a-z-]*:ecr-public::([0-9]{12}):repository/(.{2,205})", re.DOTALL)
_DEFAULT_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DEFAULT_DIGITS = "0123456789"
_DEFAULT_LENGTH = 8

_PRIVATE, _PUBLIC = "ecr:", "ecr-public:"
_PULLS = frozenset(
    {
        "ecr-public:batchchecklayeravailability",
        "ecr-public:batchgetimage",
        "ecr-public:getdownloadurlforlayer",
        "ecr-public:listimagereferrers",
        "ecr-public:listimages",
    }
)

PULLS = Policy(
    PolicyKind.PUBLIC_REPOSITORY,
    (Statement(Effect.ALLOW, Patterns(tuple(sorted(_PULLS))), sid="everybody may pull"),),
    "public repositories",
)
"""What everybody may do in a public repository, whatever its policy says."""


@dataclass(frozen=True, slots=True)
class PublicRegistry:
    """The public registry of a node. Without an alias, which is `""` then, there is no public repository yet."""

    alias: str = ""
    is_default: bool = True
    """Whether the alias was chosen at random."""
    is_enabled: bool = True
    """Whether it is served; what is below the alias is kept apart from private repositories in any case."""
    url: str | None = None
    """Where clients find it, if that is not where they find the node."""
    display_name: str | None = None
    anonymous_pulls: float | None = None
    """Images a second that one address may pull without a name; unlimited, if absent."""
    named_pulls: float | None = None
    """Images a second that one caller with a name may pull."""

    def covers(self, name: str) -> bool:
        """Tell whether a repository of this name is public."""
        return name.startswith(f"{self.alias}/")

    def kind_of_policy(self, name: RepositoryName) -> PolicyKind:
        """Return what kind of policy a repository of this name has."""
        return PolicyKind.PUBLIC_REPOSITORY if self.covers(name) else PolicyKind.REPOSITORY

    def to_stored(self, name: str) -> RepositoryName:
        """Return under which name the node has a public repository; one that cannot exist without an alias."""
        return RepositoryName(f"{self.alias}/{name}")

    def to_public(self, name: RepositoryName) -> str:
        """Return the name of a stored repository as ECR Public writes it."""
        return name.removeprefix(f"{self.alias}/")

    def in_words(self, text: str) -> str:
        """Return a text with the names of repositories in it as ECR Public writes them."""
        return text.replace(f"'{self.alias}/", "'")


def parse_alias(text: str) -> str:
    """Return an alias; raise InvalidInput for what cannot be one."""
    if not 2 <= len(text) <= MAX_ALIAS or _ALIAS.fullmatch(text) is None:
        raise InvalidInput(
            "expected an alias of 2 to 50 lower-case letters and digits that begins with a letter, single '.', '_' or"
            " '-' between them after the second one"
        )
    return text


def default_alias(choice: Callable[[str], str]) -> str:
    """Return an alias such as `a1b2c3d4`, of letters and digits in turns that `choice` takes."""
    return "".join(choice(_DEFAULT_DIGITS if place % 2 else _DEFAULT_LETTERS) for place in range(_DEFAULT_LENGTH))


def public_action(action: str) -> str:
    """Return what an action on a repository is called on a public one."""
    return _PUBLIC + action[len(_PRIVATE) :] if action[: len(_PRIVATE)].lower() == _PRIVATE else action


def is_public_action(action: str) -> bool:
    """Tell whether an action is one of ECR Public."""
    return action[: len(_PUBLIC)].lower() == _PUBLIC


def is_pull(action: str) -> bool:
    """Tell whether an action of ECR Public is for everybody."""
    return action.lower() in _PULLS


def repository_arn(account: AccountId, name: str) -> str:
    """Return the ARN of a public repository, which is of no region."""
    return f"arn:aws:ecr-public::{account}:repository/{name}"


def registry_arn(account: AccountId) -> str:
    """Return the ARN of an account's public registry."""
    return f"arn:aws:ecr-public::{account}:registry/{account}"


def parse_repository_arn(text: str) -> tuple[AccountId, str]:
    """Return the account and the repository that an ARN names; raise InvalidInput when it names none."""
    match = _ARN.fullmatch(text)
    if match is None or _NAME.fullmatch(match[2]) is None:
        raise InvalidInput(f"expected the ARN of a public repository, got {text[:80]!r}")
    return AccountId(match[1]), match[2]
