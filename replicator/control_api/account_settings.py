"""Account settings (ECR §13.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.account_settings import parse_setting_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler


async def get_account_setting(call: Call) -> Document:
    """Return a setting as it is in force."""
    name = parse_setting_name(call.input.text("name"))
    return {"name": name.value, "value": call.registry.run_time_settings.account.get(name)}


async def put_account_setting(call: Call) -> Document:
    """Change a setting."""
    name, value = parse_setting_name(call.input.text("name")), call.input.text("value")
    await call.registry.run_time_settings.account.put(name, value)
    return {"name": name.value, "value": value}


HANDLERS: Mapping[str, Handler] = {
    "GetAccountSetting": get_account_setting,
    "PutAccountSetting": put_account_setting,
}
