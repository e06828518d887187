"""Conditions of policies: which operators and keys there are, what values they take, and when one holds (ECR §14.3).

A key that nobody here knows, or a value that an operator cannot compare, is refused when a policy is set: a condition
that silently never holds would turn a Deny into nothing. Keys that AWS knows and that no request here can carry are
accepted, and are missing from every request, which is what they would be there.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from replicator.core.policy_matching import matches_pattern

Facts = Mapping[str, tuple[str, ...]]
"""What is known of a request, by condition keys in lower case; what is not known is left out (tags: `tag_facts`)."""

_KEYS = frozenset(
    {
        "aws:calledvia",
        "aws:calledviafirst",
        "aws:calledvialast",
        "aws:currenttime",
        "aws:ec2instancesourceprivateipv4",
        "aws:ec2instancesourcevpc",
        "aws:epochtime",
        "aws:federatedprovider",
        "aws:multifactorauthage",
        "aws:multifactorauthpresent",
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principalisawsservice",
        "aws:principalorgid",
        "aws:principalorgpaths",
        "aws:principalservicename",
        "aws:principalservicenameslist",
        "aws:principaltype",
        "aws:referer",
        "aws:requestedregion",
        "aws:resourceaccount",
        "aws:resourceorgid",
        "aws:resourceorgpaths",
        "aws:securetransport",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceidentity",
        "aws:sourceip",
        "aws:sourceorgid",
        "aws:sourceorgpaths",
        "aws:sourcevpc",
        "aws:sourcevpcarn",
        "aws:sourcevpce",
        "aws:tagkeys",
        "aws:tokenissuetime",
        "aws:useragent",
        "aws:userid",
        "aws:username",
        "aws:viaawsservice",
        "aws:vpcsourceip",
    }
)
_KEYS_WITH_TAG = (
    "aws:principaltag/",
    "aws:requesttag/",
    "aws:resourcetag/",
    "ecr:resourcetag/",
    "ecr-public:resourcetag/",
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})")
_DATE = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_ARN_PARTS = 6
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Operator:
    """How a value of a request is compared with those of a condition. `check` raises ValueError for a bad one."""

    compare: Callable[[str, str], bool]
    check: Callable[[str], object]
    is_negated: bool = False
    takes_sets: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """One key with one operator. `quantifier` is `ForAnyValue`, `ForAllValues` or nothing.

    `key` is in lower case, but for the name of a tag in it.
    """

    name: str
    quantifier: str
    operator: str
    key: str
    values: tuple[str, ...]
    if_exists: bool = False

    def holds(self, facts: Facts) -> bool:
        """Tell whether a request of which `facts` are known meets the condition."""
        found = facts.get(self.key, facts.get(self.key.lower()))
        if self.operator == "Null":
            return (found is None) == (self.values[0].lower() == "true")
        operator = OPERATORS[self.operator]
        if found is None:
            return self.if_exists or (self.quantifier == "ForAllValues" if self.quantifier else operator.is_negated)
        if self.quantifier == "ForAllValues":
            return all(self._meets(operator, one) for one in found)
        if self.quantifier == "ForAnyValue" or not operator.is_negated:
            return any(self._meets(operator, one) for one in found)
        return all(self._meets(operator, one) for one in found)

    def _meets(self, operator: Operator, actual: str) -> bool:
        return any(operator.compare(wanted, actual) for wanted in self.values) is not operator.is_negated


def is_known_key(key: str) -> bool:
    """Tell whether there is such a condition key; `key` is in lower case."""
    return key in _KEYS or any(key.startswith(prefix) and len(key) > len(prefix) for prefix in _KEYS_WITH_TAG)


def tag_facts(prefix: str, tags: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return what is known of tags, by `prefix` and name: as it is, and in lower case.

    A condition means the tag of exactly its name, and one that is spelt otherwise only where there is no such tag: so
    nobody hides a tag behind another one, whose name differs in case.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, value in tags.items():
        lowered = f"{prefix}{name.lower()}"
        found[lowered] = (*found.get(lowered, ()), value)
    return {**found, **{f"{prefix}{name}": (value,) for name, value in tags.items()}}


def parse_condition(name: str, key: str, values: tuple[str, ...]) -> Condition:
    """Return the condition that an operator, as policies write it, makes of a key; raises ValueError."""
    quantifier, colon, rest = name.rpartition(":")
    if colon and quantifier not in {"ForAnyValue", "ForAllValues"}:
        raise ValueError(f"there is no condition operator {name}")
    base = rest.removesuffix("IfExists")
    operator = OPERATORS.get(base)
    if operator is None or (base == "Null" and rest != base):
        raise ValueError(f"there is no condition operator {name}")
    if quantifier and not operator.takes_sets:
        raise ValueError(f"condition operator {base} takes no {quantifier}")
    if not is_known_key(key.lower()):
        raise ValueError(f"there is no condition key {key}")
    for value in values:
        operator.check(value)
    if not values or (base == "Null" and len(values) > 1):
        raise ValueError(f"expected a value for {name} of {key}")
    return Condition(name, quantifier, base, _as_compared(key), values, rest != base)


def _as_compared(key: str) -> str:
    prefix, slash, tag = key.partition("/")
    return f"{prefix.lower()}{slash}{tag}"


def _no_check(value: str) -> None:
    del value


def _folded(wanted: str, actual: str) -> bool:
    return wanted.casefold() == actual.casefold()


def _same(wanted: str, actual: str) -> bool:
    return wanted == actual


def _arn(wanted: str, actual: str) -> bool:
    """Compare part by part: no wildcard reaches over a colon, but in the last part."""
    pattern, text = wanted.split(":", _ARN_PARTS - 1), actual.split(":", _ARN_PARTS - 1)
    return len(pattern) == len(text) and all(map(matches_pattern, pattern, text))


def _check_arn(value: str) -> None:
    if len(value.split(":", _ARN_PARTS - 1)) != _ARN_PARTS or not value.startswith(("arn:", "*:")):
        raise ValueError(f"expected an ARN, got {value[:80]!r}")


def _check_flag(value: str) -> None:
    if value.lower() not in {"true", "false"}:
        raise ValueError(f"expected true or false, got {value[:80]!r}")


def _check_number(value: str) -> None:
    if _number(value) is None:
        raise ValueError(f"expected a number, got {value[:80]!r}")


@lru_cache(_REMEMBERED)
def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _check_date(value: str) -> None:
    if _date(value) is None:
        raise ValueError(f"expected a date such as 2026-01-31T23:59:59Z, got {value[:80]!r}")


@lru_cache(_REMEMBERED)
def _date(text: str) -> float | None:
    if _NUMBER.fullmatch(text):
        return float(text)
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _ordered(parse: Callable[[str], float | None], test: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    def compare(wanted: str, actual: str) -> bool:
        limit, value = parse(wanted), parse(actual)
        return limit is not None and value is not None and math.isfinite(value) and test(value, limit)

    return compare


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _check_network(value: str) -> None:
    if _network(value) is None:
        raise ValueError(f"expected an address or a range such as 192.0.2.0/24, got {value[:80]!r}")


@lru_cache(_REMEMBERED)
def _network(text: str) -> Network | None:
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    mapped = found.network_address.ipv4_mapped if isinstance(found, ipaddress.IPv6Network) else None
    if mapped is not None and found.prefixlen >= 96:
        return ipaddress.ip_network((mapped, found.prefixlen - 96), strict=False)
    return found


def _within(wanted: str, actual: str) -> bool:
    network, address = _network(wanted), _network(actual)
    if network is None or address is None or network.version != address.version:
        return False
    return address.network_address in network


def _strings(compare: Callable[[str, str], bool], *, is_negated: bool = False) -> Operator:
    return Operator(compare, _no_check, is_negated, takes_sets=True)


def _comparisons(
    kind: str, parse: Callable[[str], float | None], check: Callable[[str], object]
) -> dict[str, Operator]:
    tests: dict[str, Callable[[float, float], bool]] = {
        "Equals": lambda value, limit: value == limit,
        "LessThan": lambda value, limit: value < limit,
        "LessThanEquals": lambda value, limit: value <= limit,
        "GreaterThan": lambda value, limit: value > limit,
        "GreaterThanEquals": lambda value, limit: value >= limit,
    }
    found = {f"{kind}{name}": Operator(_ordered(parse, test), check) for name, test in tests.items()}
    return {**found, f"{kind}NotEquals": Operator(_ordered(parse, tests["Equals"]), check, is_negated=True)}


OPERATORS: Mapping[str, Operator] = {
    "StringEquals": _strings(_same),
    "StringNotEquals": _strings(_same, is_negated=True),
    "StringEqualsIgnoreCase": _strings(_folded),
    "StringNotEqualsIgnoreCase": _strings(_folded, is_negated=True),
    "StringLike": _strings(matches_pattern),
    "StringNotLike": _strings(matches_pattern, is_negated=True),
    "ArnEquals": Operator(_arn, _check_arn),
    "ArnLike": Operator(_arn, _check_arn),
    "ArnNotEquals": Operator(_arn, _check_arn, is_negated=True),
    "ArnNotLike": Operator(_arn, _check_arn, is_negated=True),
    "IpAddress": Operator(_within, _check_network),
    "NotIpAddress": Operator(_within, _check_network, is_negated=True),
    "Bool": Operator(_folded, _check_flag),
    "Null": Operator(_folded, _check_flag),
    **_comparisons("Numeric", _number, _check_number),
    **_comparisons("Date", _date, _check_date),
}
"""The condition operators that policies may use, without quantifier and `IfExists`."""
