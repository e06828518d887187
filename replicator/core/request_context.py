"""What the conditions of policies may ask of a request and of who makes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from replicator.core.principal_arns import account_of_root, session_role, user_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.names import AccountId

_NO_VALUES: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What conditions may ask of a request. `values` holds further condition keys, in lower case."""

    source_ip: str | None = None
    is_secure: bool = False
    now: float | None = None
    values: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_VALUES)


NO_CONTEXT = RequestContext()


def facts_of_request(context: RequestContext) -> dict[str, tuple[str, ...]]:
    """Return what a request is known by."""
    facts: dict[str, tuple[str, ...]] = {
        "aws:securetransport": ("true" if context.is_secure else "false",),
        "aws:viaawsservice": ("false",),
        "aws:principalisawsservice": ("false",),
    }
    if context.source_ip is not None:
        facts["aws:sourceip"] = (context.source_ip,)
    if context.now is not None:
        moment = datetime.fromtimestamp(int(context.now), UTC)
        facts["aws:currenttime"] = (moment.strftime("%Y-%m-%dT%H:%M:%SZ"),)
        facts["aws:epochtime"] = (str(int(context.now)),)
    return facts


def facts_of_caller(arn: str | None, account: AccountId | None) -> dict[str, tuple[str, ...]]:
    """Return what a caller is known by; one without an ARN has no name."""
    if arn is None:
        return {"aws:principaltype": ("Anonymous",)}
    role, user, partition = session_role(arn), user_name(arn), arn.split(":")[1]
    # A session is known by the role that it is one of, as in AWS.
    shown = arn if role is None else f"arn:{partition}:iam::{role.account}:role/{role.name}"
    facts: dict[str, tuple[str, ...]] = {"aws:principalarn": (shown,), "aws:principaltype": ("User",)}
    if account is not None:
        facts["aws:principalaccount"] = (account,)
    if role is not None:
        facts["aws:principaltype"] = ("AssumedRole",)
    elif user is not None:
        facts["aws:username"] = (user,)
    elif account_of_root(arn) is not None:
        facts["aws:principaltype"] = ("Account",)
        facts["aws:userid"] = (arn.split(":")[4],)
    return facts
