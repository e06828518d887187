"""The settings of an account's registry: ECR's three, by their names in the API (ECR §13.6)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENABLED, DISABLED = "ENABLED", "DISABLED"


class AccountSettingName(enum.StrEnum):
    """What can be set."""

    BASIC_SCAN_TYPE_VERSION = "BASIC_SCAN_TYPE_VERSION"
    REGISTRY_POLICY_SCOPE = "REGISTRY_POLICY_SCOPE"
    BLOB_MOUNTING = "BLOB_MOUNTING"


class PolicyScope(enum.StrEnum):
    """What the registry policy is asked about: V1 replication and imports only, V2 every request."""

    V1 = "V1"
    V2 = "V2"


VALUES: Mapping[AccountSettingName, tuple[str, ...]] = {
    AccountSettingName.BASIC_SCAN_TYPE_VERSION: ("AWS_NATIVE", "CLAIR"),
    AccountSettingName.REGISTRY_POLICY_SCOPE: tuple(PolicyScope),
    AccountSettingName.BLOB_MOUNTING: (ENABLED, DISABLED),
}


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """The settings in force. `is_mounting` tells whether blobs may be mounted from another repository."""

    basic_scan_type_version: str = "AWS_NATIVE"
    registry_policy_scope: PolicyScope = PolicyScope.V2
    is_mounting: bool = True

    def value(self, name: AccountSettingName) -> str:
        """Return a setting, as the API writes it."""
        match name:
            case AccountSettingName.BASIC_SCAN_TYPE_VERSION:
                return self.basic_scan_type_version
            case AccountSettingName.REGISTRY_POLICY_SCOPE:
                return self.registry_policy_scope.value
            case AccountSettingName.BLOB_MOUNTING:
                return ENABLED if self.is_mounting else DISABLED

    def changed_by(self, values: Mapping[str, str]) -> AccountSettings:
        """Return the settings with some of them set; those that are not named stay."""
        names = AccountSettingName
        mounting = values.get(names.BLOB_MOUNTING)
        return AccountSettings(
            values.get(names.BASIC_SCAN_TYPE_VERSION, self.basic_scan_type_version),
            PolicyScope(values.get(names.REGISTRY_POLICY_SCOPE, self.registry_policy_scope)),
            self.is_mounting if mounting is None else mounting == ENABLED,
        )


def parse_setting_name(text: str) -> AccountSettingName:
    """Return the name of a setting; raise InvalidInput when there is none of this name."""
    try:
        return AccountSettingName(text)
    except ValueError as error:
        raise _not_one_of("name", AccountSettingName) from error


def check_setting_value(name: AccountSettingName, value: str) -> None:
    """Raise InvalidInput for a value that a setting cannot have."""
    if value not in VALUES[name]:
        raise _not_one_of("value", VALUES[name])


def _not_one_of(field: str, values: Iterable[str]) -> InvalidInput:
    return InvalidInput(texts.constraint(field, f"Member must satisfy enum value set: [{', '.join(values)}]"))
