"""The pull-through cache rules that can be made while a registry runs, besides those of the configuration file.

A rule is in force in the running cache when the call that makes it returns. One whose upstream the configuration does
not know any more stays listed and is not in force. Deleting a rule keeps what it brought.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from replicator.core import texts
from replicator.core.errors import CacheRuleExists, CacheRuleLimit, CacheRuleNotFound, InvalidInput, UnsupportedUpstream
from replicator.core.pull_through_rules import (
    KnownUpstream,
    PullThroughRule,
    check_rule,
    client_name,
    covering,
    find_upstream,
)
from replicator.registry.run_time_documents import read_document
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replicator.core.cache_rules import CacheRule
    from replicator.registry.run_time_documents import RunTimeDocuments
    from replicator.registry.settings import RegistrySettings

_log = get_logger(__name__)

CACHE_RULES = "cache-rules"


class RuleUpstreams(Protocol):
    """The registries that rules can name, and the secrets that they can have."""

    @property
    def known(self) -> Sequence[KnownUpstream]:
        """The registries of the configuration."""
        ...

    async def check_secret(self, arn: str) -> None:
        """Return if there is such a secret with credentials in it.

        Raises SecretNotFound, SecretInaccessible, SecretUndecipherable.
        """
        ...

    async def probe(self, client: str) -> str | None:
        """Connect and log in to a registry by the name of its client; return what is wrong, None for nothing."""
        ...


@dataclass(frozen=True, slots=True)
class CacheRuleInForce:
    """A rule; a declared one is the file's."""

    rule: PullThroughRule
    is_declared: bool = False


class RunTimeCacheRules:
    """The pull-through cache rules of one node."""

    def __init__(self, documents: RunTimeDocuments, upstreams: RuleUpstreams) -> None:
        self._documents = documents
        self._upstreams = upstreams
        documents.add(CACHE_RULES, self._in_force)

    def list(self) -> list[CacheRuleInForce]:
        """Return the rules, by prefix."""
        declared = [CacheRuleInForce(self._declared(one), True) for one in self._documents.declared.cache_rules]
        paths = {one.rule.path for one in declared}
        stored = (one for one in read_cache_rules(self._documents.find(CACHE_RULES)) if one.path not in paths)
        return sorted([*declared, *map(CacheRuleInForce, stored)], key=lambda one: one.rule.prefix)

    def get(self, prefix: str) -> PullThroughRule:
        """Return the rule of a prefix; raises CacheRuleNotFound."""
        found = covering([one.rule for one in self.list()], prefix)
        if found is None:
            raise self._not_found(prefix)
        return found

    async def create(self, rule: PullThroughRule, kind: str | None) -> PullThroughRule:
        """Add a rule for an upstream, of ECR's `kind` if the caller says so, and return it as it is kept.

        Raises InvalidInput, UnsupportedUpstream, CacheRuleExists, CacheRuleLimit, the errors of `check_secret`, and
        StorageError.
        """
        public = self._documents.node.settings.public_registry
        if public.covers(f"{rule.path}/"):
            raise InvalidInput(texts.constraint("ecrRepositoryPrefix", texts.below_alias(public.alias)))
        upstream = find_upstream(self._upstreams.known, rule.url)
        check_rule(rule, upstream, kind, self._documents.declared.node)
        await self._check_secret(rule.credential_arn)
        made = replace(rule, kind=upstream.kind or kind, created_at=self._documents.node.clock.now())
        declared, limit = self._documents.declared.cache_rules, self._documents.declared.quotas.cache_rules

        def edit(content: str | None) -> str:
            before = read_cache_rules(content)
            taken = {one.prefix for one in declared} | {one.path for one in before}
            if made.path in taken:
                raise CacheRuleExists(texts.cache_rule_exists(made.prefix, self._account))
            if len(taken) >= limit:
                raise CacheRuleLimit(texts.cache_rules_exceeded(limit))
            return write_cache_rules((*before, made))

        await self._documents.change(CACHE_RULES, edit)
        return made

    async def update(self, prefix: str, credential_arn: str | None, custom_role_arn: str | None) -> PullThroughRule:
        """Give a rule another secret, or another role, and return it; None leaves what it has.

        Raises CacheRuleNotFound, DeclaredInFile, the errors of `check_secret`, StorageError.
        """
        self._refuse_declared(prefix)
        self.get(prefix)
        await self._check_secret(credential_arn)
        now = self._documents.node.clock.now()

        def change(rule: PullThroughRule) -> PullThroughRule:
            return replace(
                rule,
                credential_arn=credential_arn or rule.credential_arn,
                custom_role_arn=custom_role_arn or rule.custom_role_arn,
                updated_at=now,
            )

        return await self._change(prefix, change)

    async def delete(self, prefix: str) -> PullThroughRule:
        """Remove a rule and return it. Raises CacheRuleNotFound, DeclaredInFile, StorageError."""
        self._refuse_declared(prefix)
        return await self._change(prefix, None)

    async def validate(self, prefix: str) -> tuple[PullThroughRule, str | None]:
        """Connect and log in to a rule's upstream; return the rule, and what is wrong, None for nothing.

        Raises CacheRuleNotFound.
        """
        rule = self.get(prefix)
        declared = next((one for one in self._documents.declared.cache_rules if one.prefix == rule.path), None)
        if declared is not None:
            return rule, await self._upstreams.probe(declared.upstream)
        try:
            upstream = find_upstream(self._upstreams.known, rule.url)
        except UnsupportedUpstream as error:
            return rule, str(error)
        return rule, await self._upstreams.probe(client_name(upstream.name, rule.credential_arn))

    async def _change(
        self, prefix: str, change: Callable[[PullThroughRule], PullThroughRule] | None
    ) -> PullThroughRule:
        """Replace a rule by what `change` makes of it, or remove it; return it as it is then, or was."""
        found: list[PullThroughRule] = []

        def edit(content: str | None) -> str:
            before = read_cache_rules(content)
            rule = covering(before, prefix)
            if rule is None:
                raise self._not_found(prefix)
            kept = () if change is None else (change(rule),)
            found[:] = kept or (rule,)
            return write_cache_rules((*(one for one in before if one is not rule), *kept))

        await self._documents.change(CACHE_RULES, edit)
        return found[0]

    async def _check_secret(self, arn: str | None) -> None:
        if arn is not None:
            await self._upstreams.check_secret(arn)

    def _refuse_declared(self, prefix: str) -> None:
        if any(one.prefix == prefix.removesuffix("/") for one in self._documents.declared.cache_rules):
            raise self._documents.refusal(f"cache rule {prefix}")

    def _not_found(self, prefix: str) -> CacheRuleNotFound:
        return CacheRuleNotFound(texts.cache_rule_not_found(prefix, self._account))

    @property
    def _account(self) -> str:
        return self._documents.declared.node.account

    def _declared(self, rule: CacheRule) -> PullThroughRule:
        known = next((one for one in self._upstreams.known if one.name == rule.upstream), None)
        host, kind = (rule.upstream, None) if known is None else (known.host, known.kind)
        return PullThroughRule(rule.prefix, host, kind, rule.upstream_prefix)

    def _in_force(self, settings: RegistrySettings, content: str | None) -> RegistrySettings:
        prefixes = {one.prefix for one in settings.cache_rules}
        stored = [one for one in read_cache_rules(content) if one.path not in prefixes]
        found = [rule for one in stored if (rule := self._cache_rule(one)) is not None]
        return replace(settings, cache_rules=(*settings.cache_rules, *found))

    def _cache_rule(self, rule: PullThroughRule) -> CacheRule | None:
        try:
            return rule.to_cache_rule(find_upstream(self._upstreams.known, rule.url))
        except UnsupportedUpstream as error:
            node = str(self._documents.declared.node)
            _log.warning("cache rule is not in force", node=node, rule=rule.prefix, error=str(error))
            return None


class NoUpstreams:
    """Stands for a configuration without upstreams and secrets."""

    known: Sequence[KnownUpstream] = ()

    async def check_secret(self, arn: str) -> None:
        """Raise UnsupportedUpstream: nothing can be asked with a secret here."""
        raise UnsupportedUpstream(f"there is nothing here to use secret {arn} for")

    async def probe(self, client: str) -> str | None:
        """Say that nothing can be asked."""
        return f"there is no registry {client}"


def write_cache_rules(rules: Sequence[PullThroughRule]) -> str:
    """Return rules as JSON."""
    return json.dumps({"rules": [asdict(one) for one in rules]})


def read_cache_rules(text: str | None) -> tuple[PullThroughRule, ...]:
    """Return what `write_cache_rules` wrote, or nothing for None; raises StorageVersion."""
    return () if text is None else read_document(CACHE_RULES, text, _rules)


def _rules(document: dict[str, Any]) -> tuple[PullThroughRule, ...]:
    return tuple(PullThroughRule(**one) for one in document["rules"])
