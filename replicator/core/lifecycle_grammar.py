"""The text of a lifecycle policy: what is accepted, and what is said of everything else (ECR §8.1, §8.2).

ECR checks a policy with a JSON-schema validator and then compares its rules with each other. The phrases are the
validator's, in the order in which ECR is seen to find mistakes: the shape of all rules; then rule by rule its members,
its action and its selection; then what rules have with each other. Two phrases end without the closing quote, as there.

Unlike a JSON parser, this refuses what could be read in two ways or not be written again: NaN, half a surrogate pair.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, NoReturn, TypeVar

from replicator.core.errors import InvalidLifecyclePolicy
from replicator.core.lifecycle import (
    ActionType,
    CountType,
    LifecyclePolicy,
    LifecycleRule,
    StorageClass,
    TagStatus,
)
from replicator.core.quotas import DEFAULT_QUOTAS

if TYPE_CHECKING:
    import enum
    from collections.abc import Collection, Mapping, Sequence

    E = TypeVar("E", bound=enum.StrEnum)

MIN_TEXT, MAX_TEXT = 100, 30_720
"""Characters of a policy that is put or previewed; that of a template may be shorter."""
MIN_ARCHIVED_DAYS = 90
MAX_WILDCARDS = 4

_MAX_INTEGER = 2**31 - 1
_PREFIX = (
    "Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation failure: "
)
_UNREADABLE = "Could not map policyString into LifecyclePolicy.'"
_NO_SCHEMA = "instance failed to match exactly one schema (matched 0 out of 2)"
_RULE, _RULE_REQUIRED = ("rulePriority", "description", "selection", "action"), ("rulePriority", "selection", "action")
_SELECTION_REQUIRED = ("tagStatus", "countType", "countNumber")
_SELECTION = (*_SELECTION_REQUIRED, "countUnit", "tagPrefixList", "tagPatternList", "storageClass")
_ACTION, _ACTION_REQUIRED = ("type", "targetStorageClass"), ("type",)
_TYPE_NAMES = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"))


def parse_lifecycle_policy(text: str, max_rules: int | None = DEFAULT_QUOTAS.lifecycle_rules) -> LifecyclePolicy:
    """Return the policy that `text` states; raises InvalidLifecyclePolicy, in ECR's words.

    The length of the text is the caller's to check: it differs between an operation and a template. None for
    `max_rules`, as for a policy that was accepted before, takes any number of rules.
    """
    document = _load(text)
    rules = document.get("rules")
    if not isinstance(rules, list):
        _refuse_missing(["rules"])
    _check_members(document, ("rules",), ("rules",))
    _check_length(rules, max_rules)
    for rule in rules:
        _check_type(rule, "object")
    parsed = [_rule(rule) for rule in rules]
    _check_together(parsed)
    compact = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return LifecyclePolicy(tuple(sorted(parsed, key=lambda one: one.priority)), compact)


def _load(text: str) -> Mapping[str, object]:
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        _refuse(_UNREADABLE)
    if not isinstance(document, dict):
        _refuse(_UNREADABLE)
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


# One rule


def _rule(members: Mapping[str, object]) -> LifecycleRule:
    _check_members(members, _RULE, _RULE_REQUIRED)
    priority = _integer(members["rulePriority"])
    if "description" in members:
        _check_type(members["description"], "string")
    action = _action(_object(members["action"]))
    return _selection(_object(members["selection"]), priority, action)


def _action(members: Mapping[str, object]) -> ActionType:
    _check_members(members, _ACTION, _ACTION_REQUIRED)
    action = _one_of(members["type"], ActionType)
    if action is ActionType.EXPIRE:
        if "targetStorageClass" in members:
            _refuse(_NO_SCHEMA)
        return action
    if "targetStorageClass" not in members:
        _refuse(_UNREADABLE)
    target = members["targetStorageClass"]
    if target is None:
        _refuse(_NO_SCHEMA)
    if target != StorageClass.ARCHIVE:
        _refuse_value(target, [StorageClass.ARCHIVE.value])
    return action


def _selection(members: Mapping[str, object], priority: int, action: ActionType) -> LifecycleRule:
    _check_members(members, _SELECTION, _SELECTION_REQUIRED)
    tag_status = _one_of(members["tagStatus"], TagStatus)
    count_type = _count_type(members["countType"])
    if members.get("countUnit", "days") is None:
        _refuse(_NO_SCHEMA)
    if members.get("countUnit", "days") != "days":
        _refuse_value(members["countUnit"], ["days"])
    count = _integer(members["countNumber"])
    if ("countUnit" in members) is (count_type is CountType.IMAGE_COUNT_MORE_THAN):
        _refuse(_NO_SCHEMA)
    rule = LifecycleRule(
        priority,
        tag_status,
        count_type,
        count,
        action,
        _one_of(members.get("storageClass", StorageClass.STANDARD.value), StorageClass),
        _texts(members, "tagPatternList"),
        _texts(members, "tagPrefixList"),
    )
    _check_tags(rule, members)
    _check_clock(rule)
    return rule


def _count_type(value: object) -> CountType:
    found = _find(value, CountType)
    if found is None:
        _refuse(_NO_SCHEMA)
    return found


def _texts(members: Mapping[str, object], name: str) -> tuple[str, ...]:
    if name not in members:
        return ()
    found = members[name]
    _check_type(found, "array")
    assert isinstance(found, list)  # noqa: S101 - just checked
    for text in found:
        _check_type(text, "string")
        if not text:
            _refuse('string "" is too short (length: 0, required minimum: 1)\'')
    return tuple(found)


def _check_tags(rule: LifecycleRule, members: Mapping[str, object]) -> None:
    if rule.tag_status is not TagStatus.TAGGED:
        for name in ("tagPrefixList", "tagPatternList"):
            if name in members:
                _refuse(f"Cannot specify {name} with tagStatus {rule.tag_status}.'")
        return
    if not rule.patterns and not rule.prefixes:
        _refuse("Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED.'")
    if rule.patterns and rule.prefixes:
        _refuse("If policy has a tagged rule, it must specify only one of tagPrefixList or tagPatternList.'")
    if any(pattern.count("*") > MAX_WILDCARDS for pattern in rule.patterns):
        _refuse("Invalid tag pattern provided.'")


def _check_clock(rule: LifecycleRule) -> None:
    """Refuse a clock that runs only for the other storage class or the other action."""
    if rule.count_type is not CountType.SINCE_IMAGE_TRANSITIONED:
        if rule.storage_class is StorageClass.ARCHIVE:
            _refuse(
                "SINCE_IMAGE_PUSHED, SINCE_IMAGE_PULLED and IMAGE_COUNT_MORE_THAN support the STANDARD storage class"
                " only.'"
            )
        if rule.count_type is CountType.SINCE_IMAGE_PULLED and rule.action is ActionType.EXPIRE:
            _refuse("SINCE_IMAGE_PULLED supports the TRANSITION action only.'")
        return
    if rule.storage_class is not StorageClass.ARCHIVE:
        _refuse("SINCE_IMAGE_TRANSITIONED supports the ARCHIVE storage class only.'")
    if rule.action is not ActionType.EXPIRE:
        _refuse("SINCE_IMAGE_TRANSITIONED supports the EXPIRE action only.'")
    if rule.count < MIN_ARCHIVED_DAYS:
        _refuse_small(rule.count, MIN_ARCHIVED_DAYS)


# All rules


def _check_together(rules: Sequence[LifecycleRule]) -> None:
    if len({rule.priority for rule in rules}) != len(rules):
        _refuse("Duplicate priority in multiple rules.'")
    untagged = Counter(rule.storage_class for rule in rules if rule.tag_status is TagStatus.UNTAGGED)
    if any(count > 1 for count in untagged.values()):
        _refuse("Only one rule can select Untagged images per storage class.'")
    for rule in rules:
        if rule.tag_status is TagStatus.ANY and any(
            other.storage_class is rule.storage_class and other.priority > rule.priority for other in rules
        ):
            _refuse("Rule for tagStatus=ANY must have the lowest priority per storage class.'")
    _check_repetition("tagPrefixList", [(rule.storage_class, frozenset(rule.prefixes)) for rule in rules])
    _check_repetition("tagPatternList", [(rule.storage_class, frozenset(rule.patterns)) for rule in rules])


def _check_repetition(name: str, lists: Sequence[tuple[StorageClass, frozenset[str]]]) -> None:
    if any(texts and count > 1 for (_, texts), count in Counter(lists).items()):
        _refuse(f"Duplicate {name} in multiple rules per storage class.'")


# What a schema says of one value


def _check_members(members: Mapping[str, object], known: Collection[str], required: Collection[str]) -> None:
    missing = sorted(set(required) - set(members))
    if missing:
        _refuse_missing(missing)
    unknown = sorted(set(members) - set(known))
    if unknown:
        _refuse(f"object instance has properties which are not allowed by the schema: ({json.dumps(unknown)})'")


def _check_length(rules: Sequence[object], most: int | None) -> None:
    count = len(rules)
    if not count:
        _refuse("array is too short: must have at least 1 elements but instance has 0 elements'")
    if most is not None and count > most:
        _refuse(f"array is too long: must have at most {most} elements but instance has {count} elements'")


def _object(value: object) -> Mapping[str, object]:
    _check_type(value, "object")
    assert isinstance(value, dict)  # noqa: S101 - just checked
    return value


def _integer(value: object) -> int:
    _check_type(value, "integer")
    assert isinstance(value, int)  # noqa: S101 - just checked
    if value < 1:
        _refuse_small(value, 1)
    if value > _MAX_INTEGER:
        _refuse(_UNREADABLE)
    return value


def _one_of(value: object, kind: type[E]) -> E:
    found = _find(value, kind)
    if found is None:
        _refuse_value(value, sorted(kind))
    return found


def _find(value: object, kind: type[E]) -> E | None:
    return next((one for one in kind if one == value), None)


def _check_type(value: object, expected: str) -> None:
    found = _type_name(value)
    if found != expected:
        _refuse(
            f"instance type ({found}) does not match any allowed primitive type (allowed: {json.dumps([expected])})'"
        )


def _type_name(value: object) -> str:
    if value is None:
        return "null"
    return next((name for kind, name in _TYPE_NAMES if isinstance(value, kind)), "object")


def _refuse_missing(names: Sequence[str]) -> NoReturn:
    _refuse(f"object has missing required properties ({json.dumps(names)})'")


def _refuse_value(value: object, allowed: Sequence[str]) -> NoReturn:
    shown = value if isinstance(value, str) else json.dumps(value)
    _refuse(f"instance value ({shown[:200]}) not found in enum :(possible values: {json.dumps(allowed)})'")


def _refuse_small(value: int, least: int) -> NoReturn:
    _refuse(f"numeric instance is lower than the required minimum (minimum: {least}, found: {value})")


def _refuse(detail: str) -> NoReturn:
    raise InvalidLifecyclePolicy(_PREFIX + detail)
