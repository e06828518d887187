"""Pull-through cache rules (ECR §10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.pages import page_of
from replicator.core import texts
from replicator.core.cache_rules import ROOT
from replicator.core.errors import CacheRuleNotFound
from replicator.core.pull_through_rules import PullThroughRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler


async def create_pull_through_cache_rule(call: Call) -> Document:
    """Make a rule."""
    given = call.input
    rule = PullThroughRule(
        given.text("ecrRepositoryPrefix"),
        given.text("upstreamRegistryUrl"),
        upstream_prefix=given.find_text("upstreamRepositoryPrefix") or ROOT,
        credential_arn=given.find_text("credentialArn"),
        custom_role_arn=given.find_text("customRoleArn"),
    )
    rules = call.registry.run_time_settings.cache_rules
    return _document(call, await rules.create(rule, given.find_text("upstreamRegistry")), _CREATED)


async def describe_pull_through_cache_rules(call: Call) -> Document:
    """Return the rules that are named, or a page of all, by prefix."""
    wanted = {one.removesuffix("/"): one for one in call.input.texts("ecrRepositoryPrefixes")}
    page = page_of(call)
    rules = [one.rule for one in call.registry.run_time_settings.cache_rules.list()]
    missing = wanted.keys() - {one.path for one in rules}
    if missing:
        account = call.registry.names.id.account
        raise CacheRuleNotFound(texts.cache_rule_not_found(wanted[min(missing)], account))
    found = [one for one in rules if one.prefix > page.after and (not wanted or one.path in wanted)]
    shown, token = page.cut(found, lambda one: one.prefix)
    return present(pullThroughCacheRules=[_document(call, one, _LISTED) for one in shown], nextToken=token)


async def update_pull_through_cache_rule(call: Call) -> Document:
    """Give a rule another secret or role."""
    given = call.input
    changed = await call.registry.run_time_settings.cache_rules.update(
        given.text("ecrRepositoryPrefix"), given.find_text("credentialArn"), given.find_text("customRoleArn")
    )
    return _document(call, changed, _UPDATED)


async def delete_pull_through_cache_rule(call: Call) -> Document:
    """Remove a rule, and keep what it brought."""
    deleted = await call.registry.run_time_settings.cache_rules.delete(call.input.text("ecrRepositoryPrefix"))
    return _document(call, deleted, _DELETED)


async def validate_pull_through_cache_rule(call: Call) -> Document:
    """Connect and log in to the upstream of a rule."""
    rules = call.registry.run_time_settings.cache_rules
    rule, failure = await rules.validate(call.input.text("ecrRepositoryPrefix"))
    return {**_document(call, rule, _VALIDATED), **present(isValid=failure is None, failure=failure)}


_SAID = {"ecrRepositoryPrefix", "registryId", "credentialArn", "customRoleArn", "upstreamRepositoryPrefix"}
_DELETED = _SAID | {"upstreamRegistryUrl", "createdAt"}
_CREATED = _DELETED | {"upstreamRegistry"}
_LISTED = _CREATED | {"updatedAt"}
_UPDATED = _SAID | {"updatedAt"}
_VALIDATED = _SAID | {"upstreamRegistryUrl"}


def _document(call: Call, rule: PullThroughRule, members: set[str]) -> Document:
    """Return those members of a rule that an operation answers with."""
    whole = present(
        ecrRepositoryPrefix=rule.prefix,
        upstreamRegistryUrl=rule.url,
        createdAt=rule.created_at,
        registryId=call.registry.names.id.account,
        upstreamRegistry=rule.kind,
        credentialArn=rule.credential_arn,
        customRoleArn=rule.custom_role_arn,
        upstreamRepositoryPrefix=rule.upstream_prefix,
        updatedAt=rule.updated_at,
    )
    return {name: value for name, value in whole.items() if name in members}


HANDLERS: Mapping[str, Handler] = {
    "CreatePullThroughCacheRule": create_pull_through_cache_rule,
    "DescribePullThroughCacheRules": describe_pull_through_cache_rules,
    "UpdatePullThroughCacheRule": update_pull_through_cache_rule,
    "DeletePullThroughCacheRule": delete_pull_through_cache_rule,
    "ValidatePullThroughCacheRule": validate_pull_through_cache_rule,
}
