"""What operators ask of access: who may do what, and which statement decides it.

Whoever may ask learns of permissions in all repositories, so it must be allowed in all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from replicator.core.actions import Action
from replicator.core.errors import InvalidInput
from replicator.core.policy_evaluation import label_of
from replicator.core.principal import Principal, PrincipalKind, assumed_root
from replicator.core.principal_arns import account_of, account_of_root, is_principal
from replicator.core.request_context import RequestContext
from replicator.registry_api.operations import POLICY_PREFIX
from replicator.registry_api.operator_api import OperatorApi
from replicator.registry_api.operator_input import query_fields
from replicator.registry_api.operator_request import Asked, answer

if TYPE_CHECKING:
    from aiohttp import web

    from replicator.core.clock import Clock
    from replicator.core.rate_limit import RateLimit
    from replicator.core.resource_policies import ResourcePolicies
    from replicator.registry_api.authentication import Authenticator
    from replicator.telemetry.requests import Observer

FindPrincipal = Callable[[str], Principal | None]
"""Finds somebody whom this node knows: a user by name, an identity by ARN, `anonymous`."""

_ACTION = re.compile(r"[a-z-]{1,32}:[A-Za-z]{1,64}")


class PolicyApi(OperatorApi):
    """Serves `/_replicator/v1/policy/` of one node."""

    def __init__(
        self,
        find: FindPrincipal,
        policies: ResourcePolicies,
        authenticator: Authenticator,
        clock: Clock,
        observe: Observer,
        rate_limit: RateLimit | None = None,
    ) -> None:
        super().__init__("policy", POLICY_PREFIX, authenticator, clock, observe, rate_limit)
        self._find = find
        self._rules = policies
        self._time = clock
        self.decide_by(policies)
        self.pages = {"explain": {"GET": self._explain}}

    async def _explain(self, asked: Asked) -> web.Response:
        fields = query_fields(asked.request, "principal", "action", "repository")
        asked.authorize(Action.EXPLAIN_POLICY, None)
        name, action = fields.position("principal"), fields.find_name("action")
        if not name:
            raise InvalidInput("expected principal")
        if action is None or not _ACTION.fullmatch(action):
            raise InvalidInput(f"expected action such as ecr:BatchGetImage, got {(action or '')[:80]!r}")
        repository = fields.find_repository()
        known = self._find(name)
        principal = (known or _stranger(name)).at(self._rules, RequestContext(now=self._time.now()))
        decision = principal.decide(action, repository)
        statement = None
        if decision.policy is not None and decision.statement is not None:
            statement = {
                "policy": decision.policy.kind.value,
                "name": decision.policy.name or None,
                "statement": label_of(decision.policy, decision.statement),
                "effect": decision.statement.effect.value,
            }
        return answer(
            {
                "principal": principal.caller_arn or principal.name,
                "is_known": known is not None,
                "action": action,
                "resource": principal.resource_arn(repository),
                "allowed": decision.is_allowed,
                "decided_by": statement,
                "depends_on_request": not decision.is_constant,
                "message": None if decision.is_allowed else principal.refusal(action, repository),
            }
        )


def _stranger(arn: str) -> Principal:
    """Return somebody of whom nothing is known but the ARN; raises InvalidInput when it is none.

    The root of another account acts by rules of that account, which are taken to allow what it asks.
    """
    root = account_of_root(arn)
    if root is not None:
        return assumed_root(arn, root)
    account = account_of(arn)
    if account is None or not is_principal(arn):
        raise InvalidInput("expected the name of a user, the ARN of a principal, or anonymous")
    return Principal(arn, PrincipalKind.USER, arn=arn, account=account)
