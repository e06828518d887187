"""What can be set of a registry while it runs, one object for each kind of document.

What the configuration file declares stays in force whatever is set here, cannot be changed here, and comes first where
both say something; the error names the file. See `run_time_documents` for when a change is in effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.registry.run_time_account import RunTimeAccount
from replicator.registry.run_time_cache_rules import NoUpstreams, RunTimeCacheRules
from replicator.registry.run_time_documents import RunTimeDocuments
from replicator.registry.run_time_policy import RunTimePolicy
from replicator.registry.run_time_public_registry import RunTimePublicRegistry
from replicator.registry.run_time_pull_times import RunTimePullTimes
from replicator.registry.run_time_replication import RunTimeReplication
from replicator.registry.run_time_signing import RunTimeSigning
from replicator.registry.run_time_templates import RunTimeTemplates

if TYPE_CHECKING:
    from collections.abc import Collection

    from replicator.core.destinations import DestinationId
    from replicator.registry.node import RegistryNode
    from replicator.registry.run_time_cache_rules import RuleUpstreams


class RunTimeSettings:
    """The settings of one node that can change. `load` them before anything else runs, then `run` under a supervisor.

    `known` are the destinations that replication rules may name, others too with `accepts_unknown`; `file` is the
    configuration file as errors name it, `upstreams` what cache rules may lead to. What the node's settings say at
    first is taken for the file's.
    """

    def __init__(
        self,
        node: RegistryNode,
        known: Collection[DestinationId],
        file: str = "the configuration file",
        *,
        accepts_unknown: bool = False,
        upstreams: RuleUpstreams | None = None,
    ) -> None:
        self.documents = RunTimeDocuments(node, file)
        self.replication = RunTimeReplication(self.documents, known, accepts_unknown=accepts_unknown)
        self.policy = RunTimePolicy(self.documents)
        self.templates = RunTimeTemplates(self.documents)
        self.cache_rules = RunTimeCacheRules(self.documents, upstreams or NoUpstreams())
        self.account = RunTimeAccount(self.documents)
        self.pull_times = RunTimePullTimes(self.documents)
        self.signing = RunTimeSigning(self.documents)
        self.public_registry = RunTimePublicRegistry(self.documents)

    async def load(self) -> None:
        """Take over what is stored; raises StorageError, and ConfigurationError where the file does not go with it."""
        await self.documents.load()
        await self.public_registry.check()

    async def run(self) -> None:
        """Look every so often for what another process has set, until cancelled."""
        await self.documents.run()
