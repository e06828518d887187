"""What a configuration grants: rights, each of which is the actions of one kind of work, written as identity policies.

What nodes do for each other is not granted here: it is for the replication rules and the registry policy to say.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from replicator.core.actions import Action
from replicator.core.policy import Effect, Patterns, Policy, PolicyKind, Statement

if TYPE_CHECKING:
    from collections.abc import Mapping

_REMEMBERED = 20_000


class Right(enum.StrEnum):
    """What a configuration can grant a user: the actions that belong to one kind of work."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


ACTIONS_OF: Mapping[Right, frozenset[Action]] = {
    # A pull through the cache may have to make the repository, which is the only thing that whoever may pull and not
    # push can have made.
    Right.PULL: frozenset(
        {
            Action.BATCH_CHECK_LAYER_AVAILABILITY,
            Action.BATCH_GET_IMAGE,
            Action.BATCH_IMPORT_UPSTREAM_IMAGE,
            Action.CREATE_REPOSITORY,
            Action.DESCRIBE_IMAGE_REPLICATION_STATUS,
            Action.DESCRIBE_IMAGE_SCAN_FINDINGS,
            Action.DESCRIBE_IMAGES,
            Action.DESCRIBE_REPOSITORIES,
            Action.GET_DOWNLOAD_URL_FOR_LAYER,
            Action.LIST_IMAGE_REFERRERS,
            Action.LIST_IMAGES,
            Action.COMPARE_REGISTRIES,
            Action.DESCRIBE_CACHE,
            Action.DESCRIBE_EVENTS,
            Action.DESCRIBE_STATUS,
            Action.EXPLAIN_POLICY,
        }
    ),
    Right.PUSH: frozenset(
        {
            Action.COMPLETE_LAYER_UPLOAD,
            Action.CREATE_REPOSITORY,
            Action.INITIATE_LAYER_UPLOAD,
            Action.PUT_IMAGE,
            Action.UPLOAD_LAYER_PART,
            Action.FILL_CACHE,
            Action.MANAGE_EVENTS,
            Action.PIN_IMAGE,
            Action.REPLICATE_AGAIN,
            Action.START_BACKFILL,
            Action.SYNC_REGISTRIES,
        }
    ),
    Right.DELETE: frozenset({Action.BATCH_DELETE_IMAGE, Action.PURGE_CACHE}),
}
"""What each right lets a user do."""


ALL_RIGHTS = frozenset(Right)


@dataclass(frozen=True, slots=True)
class Grant:
    """`rights` in the repositories that match one of `repositories` (`*` is any characters)."""

    rights: frozenset[Right]
    repositories: tuple[str, ...] = ("*",)

    def to_statement(self) -> Statement:
        """Return what this grants, in the language of policies."""
        actions = sorted({action.lower() for right in self.rights for action in ACTIONS_OF[right]})
        resources = tuple("*" if one == "*" else f"arn:*:ecr:*:*:repository/{one}" for one in self.repositories)
        return Statement(Effect.ALLOW, Patterns(tuple(actions)), Patterns(resources))


@lru_cache(_REMEMBERED)
def policies_of(grants: tuple[Grant, ...]) -> tuple[Policy, ...]:
    """Return identity policies that allow what is granted, the same ones whenever the same is; none for no grants."""
    statements = tuple(grant.to_statement() for grant in grants)
    return (Policy(PolicyKind.IDENTITY, statements, "grants of the configuration"),) if statements else ()
