"""The policies of a registry and its repositories, held in memory, so that asking waits for nothing.

Whoever changes the policy or the tags of a repository tells the node, and the next request in this process is decided
by the new ones. What other processes on the same store change is seen within `REFRESH` seconds, and no decision is
remembered for longer than that. A stored policy that cannot be read lets nobody in: it may have been a Deny.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from replicator.core.errors import InvalidPolicy, StorageError
from replicator.core.policy import Effect, Patterns, Policy, PolicyKind, Principals, Statement, parse_policy
from replicator.core.resource_policies import DecisionMemory
from replicator.storage.metadata import repositories
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from replicator.core.account_settings import PolicyScope
    from replicator.core.clock import Clock
    from replicator.core.names import NodeId, RepositoryName
    from replicator.core.public_registry import PublicRegistry
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.repositories import Repository

_log = get_logger(__name__)

REFRESH = 30.0
"""Seconds between two looks for what another process has set, and for which a decision is remembered."""

_PAGE = 200
_NO_TAGS: Mapping[str, str] = {}
_NOBODY = Policy(
    PolicyKind.REPOSITORY,
    (Statement(Effect.DENY, Patterns(("*",)), principals=Principals(anybody=True), sid="unreadable policy"),),
)


class PolicyHome(Protocol):
    """The node whose policies these are."""

    settings: RegistrySettings
    database: Database
    clock: Clock

    def on_policy(self, listener: Callable[[RepositoryName, str | None], None]) -> None:
        """Call `listener` with the policy that a repository was given, None where it was taken away."""
        ...

    def on_settings(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the settings were replaced."""
        ...

    def on_removed(self, listener: Callable[[RepositoryName], None]) -> None:
        """Call `listener` with the name of every repository that was deleted."""
        ...


class NodePolicies:
    """The policies of one node, as `Principal` asks for them. `load` them when the store is open, then `run`."""

    def __init__(self, node: PolicyHome) -> None:
        self._node = node
        self._policies: dict[RepositoryName, Policy] = {}
        self._tags: dict[RepositoryName, Mapping[str, str]] = {}
        self._parsed: WeakValueDictionary[tuple[PolicyKind, str], Policy] = WeakValueDictionary()
        self._memory = DecisionMemory()
        self._forget_at = 0.0
        self._changed: set[RepositoryName] = set()
        node.on_policy(self.replace)
        node.on_settings(self._memory.clear)
        node.on_removed(self._remove)

    @property
    def owner(self) -> NodeId:
        """The registry."""
        return self._node.settings.node

    @property
    def registry_policies(self) -> tuple[Policy, ...]:
        """What the registry's policy says: the file's part, and what was put at run time."""
        policy = self._node.settings.registry_policy
        return () if policy is None else policy.policies

    @property
    def scope(self) -> PolicyScope:
        """Which actions the registry's policy decides on."""
        return self._node.settings.account_settings.registry_policy_scope

    @property
    def public_registry(self) -> PublicRegistry:
        """Which repositories are public."""
        return self._node.settings.public_registry

    @property
    def memory(self) -> DecisionMemory:
        """Decisions that hold until a policy changes, and for `REFRESH` seconds at most."""
        now = self._node.clock.monotonic()
        if now >= self._forget_at:
            self._memory.clear()
            self._forget_at = now + REFRESH
        return self._memory

    def repository_policy(self, repository: RepositoryName) -> Policy | None:
        """Return the policy of a repository, if it has one."""
        return self._policies.get(repository)

    def resource_tags(self, repository: RepositoryName) -> Mapping[str, str]:
        """Return the tags of a repository."""
        return self._tags.get(repository, _NO_TAGS)

    def replace(self, repository: RepositoryName, text: str | None) -> None:
        """Decide by another policy of a repository, or by none."""
        self._changed.add(repository)
        self._set_policy(repository, text)
        self._memory.clear()

    def replace_tags(self, repository: RepositoryName, tags: Mapping[str, str]) -> None:
        """Know a repository by other tags."""
        self._changed.add(repository)
        self._set_tags(repository, tags)
        self._memory.clear()

    def expect(self, repository: Repository) -> None:
        """Decide by what a repository will have that a transaction makes, before anybody can ask for it."""
        if repository.policy is not None:
            self.replace(repository.name, repository.policy)
        self.replace_tags(repository.name, repository.resource_tags)

    async def load(self) -> None:
        """Take over what is stored; raises StorageError. What changes meanwhile stays as it was changed to."""
        self._changed.clear()
        found: dict[RepositoryName, repositories.Attributes] = {}
        after = ""
        while True:
            page = await self._node.database.read(repositories.attributes_after(after, _PAGE))
            found.update((one.name, one) for one in page)
            if len(page) < _PAGE:
                break
            after = page[-1].name
        for name in {*found, *self._policies, *self._tags} - self._changed:
            one = found.get(name)
            self._set_policy(name, None if one is None else one.policy)
            self._set_tags(name, _NO_TAGS if one is None else one.resource_tags)
        self._memory.clear()

    async def run(self) -> None:
        """Look every so often for what another process has set, until cancelled."""
        while True:
            await self._node.clock.sleep(REFRESH)
            try:
                await self.load()
            except StorageError as error:
                _log.warning("policies of repositories could not be read", node=str(self.owner), error=str(error))

    def _remove(self, repository: RepositoryName) -> None:
        self.replace(repository, None)
        self.replace_tags(repository, _NO_TAGS)

    def _set_policy(self, repository: RepositoryName, text: str | None) -> None:
        if text is None:
            self._policies.pop(repository, None)
        else:
            self._policies[repository] = self._parse(repository, text)

    def _set_tags(self, repository: RepositoryName, tags: Mapping[str, str]) -> None:
        if tags:
            self._tags[repository] = tags
        else:
            self._tags.pop(repository, None)

    def _parse(self, repository: RepositoryName, text: str) -> Policy:
        """Return the policy of a text, which is parsed once however many repositories have it."""
        kind = self.public_registry.kind_of_policy(repository)
        found = self._parsed.get((kind, text))
        if found is None:
            try:
                found = parse_policy(text, kind)
            except InvalidPolicy as error:
                _log.error("policy of a repository cannot be read", repository=repository, error=error.reason)
                return _NOBODY
            self._parsed[kind, text] = found
        return found
