"""Principals whose pulls leave no trace in an image's pull time (ECR §13.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.pages import page_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler


async def register_pull_time_update_exclusion(call: Call) -> Document:
    """RegisterPullTimeUpdateExclusion."""
    excluded = await call.registry.run_time_settings.pull_times.exclude(call.input.text("principalArn"))
    return {"principalArn": excluded.principal_arn, "createdAt": excluded.created_at}


async def deregister_pull_time_update_exclusion(call: Call) -> Document:
    """DeregisterPullTimeUpdateExclusion."""
    arn = call.input.text("principalArn")
    await call.registry.run_time_settings.pull_times.include(arn)
    return {"principalArn": arn}


async def list_pull_time_update_exclusions(call: Call) -> Document:
    """ListPullTimeUpdateExclusions."""
    page = page_of(call)
    arns = [one.principal_arn for one in call.registry.run_time_settings.pull_times.exclusions()]
    shown, token = page.cut([arn for arn in arns if arn > page.after], str)
    return present(pullTimeUpdateExclusions=list(shown), nextToken=token)


HANDLERS: Mapping[str, Handler] = {
    "RegisterPullTimeUpdateExclusion": register_pull_time_update_exclusion,
    "DeregisterPullTimeUpdateExclusion": deregister_pull_time_update_exclusion,
    "ListPullTimeUpdateExclusions": list_pull_time_update_exclusions,
}
