"""The text of a lifecycle policy: ECR's phrases for what is wrong with it, and what is stored of what is right."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import InvalidLifecyclePolicy
from replicator.core.lifecycle import ActionType, CountType, LifecycleRule, StorageClass, TagStatus
from replicator.core.lifecycle_grammar import parse_lifecycle_policy

PREFIX = (
    "Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation failure: "
)
NO_SCHEMA = "instance failed to match exactly one schema (matched 0 out of 2)"
UNREADABLE = "Could not map policyString into LifecyclePolicy.'"
EXPIRE = {"type": "expire"}
ARCHIVE = {"type": "transition", "targetStorageClass": "archive"}
KEEP = {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 30}
OLD = {"tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 14}
TAGGED = {"tagStatus": "tagged", "tagPatternList": ["v*"], "countType": "imageCountMoreThan", "countNumber": 1}
UNUSED = {"tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 90}
GONE = {
    "tagStatus": "any",
    "storageClass": "archive",
    "countType": "sinceImageTransitioned",
    "countUnit": "days",
    "countNumber": 90,
}


def rule(selection: object, action: object = EXPIRE, priority: object = 1, **more: object) -> dict[str, object]:
    return {"rulePriority": priority, "selection": selection, "action": action, **more}


def refusal(*rules: object) -> str:
    return refusal_of(json.dumps({"rules": rules}))


def refusal_of(text: str) -> str:
    with pytest.raises(InvalidLifecyclePolicy) as caught:
        parse_lifecycle_policy(text)
    message = str(caught.value)
    assert message.startswith(PREFIX)
    return message.removeprefix(PREFIX)


def without(members: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key != name}


def missing(name: str) -> str:
    return f'object has missing required properties (["{name}"])\''


def unknown(*names: str) -> str:
    return f"object instance has properties which are not allowed by the schema: ({json.dumps(list(names))})'"


class TestAccepted:
    def test_rules_stand_by_priority_and_the_text_is_compact(self) -> None:
        document = {"rules": [rule(OLD, ARCHIVE, 20), rule(KEEP, priority=3, description="Kürzen, bitte"), rule(GONE)]}
        document["rules"][2]["rulePriority"] = 99
        policy = parse_lifecycle_policy(json.dumps(document, indent=4))
        assert policy.rules == (
            LifecycleRule(3, TagStatus.UNTAGGED, CountType.IMAGE_COUNT_MORE_THAN, 30, ActionType.EXPIRE),
            LifecycleRule(20, TagStatus.ANY, CountType.SINCE_IMAGE_PUSHED, 14, ActionType.TRANSITION),
            LifecycleRule(
                99,
                TagStatus.ANY,
                CountType.SINCE_IMAGE_TRANSITIONED,
                90,
                ActionType.EXPIRE,
                StorageClass.ARCHIVE,
            ),
        )
        assert policy.text == json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        assert "\n" not in policy.text

    def test_what_is_stored_means_the_same(self) -> None:
        text = json.dumps({"rules": [rule(TAGGED), rule(UNUSED, ARCHIVE, 2)]}, indent=2)
        policy = parse_lifecycle_policy(text)
        assert parse_lifecycle_policy(policy.text) == policy

    @pytest.mark.parametrize(
        "rules",
        [
            [rule(OLD), rule(GONE, priority=2)],
            [rule(KEEP), rule({**KEEP, **without(GONE, "tagStatus")}, priority=2)],
            [rule({**TAGGED, "tagPatternList": ["a*b*c*d*"]})],
            [rule({**without(TAGGED, "tagPatternList"), "tagPrefixList": ["v*", "w"]})],
            [rule(TAGGED), rule({**TAGGED, "tagPatternList": ["v*", "w*"]}, priority=2)],
            [rule({**TAGGED, "tagPatternList": [f"{number}*"]}, priority=number) for number in range(1, 51)],
            [rule({**KEEP, "storageClass": "standard"})],
        ],
    )
    def test_a_policy(self, rules: list[object]) -> None:
        assert len(parse_lifecycle_policy(json.dumps({"rules": rules})).rules) == len(rules)


class TestDocument:
    @pytest.mark.parametrize(
        "text",
        [
            "some invalid input",
            '"some invalid input"',
            json.dumps([rule(KEEP)]),
            "",
            "null",
            "[" * 20_000,
            '{"rules": NaN}',
            '{"rules": [], "x": "\\ud800"}',
            '{"rules": ' + "9" * 5000 + "}",
        ],
    )
    def test_no_object(self, text: str) -> None:
        assert refusal_of(text) == UNREADABLE

    @pytest.mark.parametrize("document", [{"no_rules": "test"}, {"rules": rule(KEEP)}, {"rules": None}, {}])
    def test_no_rules(self, document: dict[str, object]) -> None:
        assert refusal_of(json.dumps(document)) == missing("rules")

    def test_other_members(self) -> None:
        assert refusal_of(json.dumps({"rules": [rule(KEEP)], "b": 1, "a": None})) == unknown("a", "b")

    def test_how_many(self) -> None:
        assert refusal() == "array is too short: must have at least 1 elements but instance has 0 elements'"
        rules = [rule({**TAGGED, "tagPatternList": [f"{one}*"]}, priority=one) for one in range(1, 52)]
        assert refusal(*rules) == "array is too long: must have at most 50 elements but instance has 51 elements'"


class TestRule:
    @pytest.mark.parametrize(
        ("value", "name"), [("x", "string"), (1, "integer"), (1.5, "number"), (True, "boolean"), ([], "array")]
    )
    def test_no_object(self, value: object, name: str) -> None:
        expected = f'instance type ({name}) does not match any allowed primitive type (allowed: ["object"])\''
        assert refusal(value) == expected
        assert refusal(rule(KEEP, value)) == expected
        assert refusal(rule(value)) == expected

    @pytest.mark.parametrize("name", ["rulePriority", "selection", "action"])
    def test_missing_member(self, name: str) -> None:
        assert refusal(without(rule(KEEP), name)) == missing(name)

    def test_missing_members_are_sorted(self) -> None:
        assert refusal({}) == 'object has missing required properties (["action", "rulePriority", "selection"])\''

    def test_unknown_member(self) -> None:
        assert refusal(rule(KEEP, unknown=123)) == unknown("unknown")

    @pytest.mark.parametrize("priority", [0, -1])
    def test_priority(self, priority: int) -> None:
        expected = f"numeric instance is lower than the required minimum (minimum: 1, found: {priority})"
        assert refusal(rule(KEEP, priority=priority)) == expected

    @pytest.mark.parametrize(("value", "name"), [("1", "string"), (1.0, "number"), (True, "boolean"), (None, "null")])
    def test_no_integer(self, value: object, name: str) -> None:
        expected = f'instance type ({name}) does not match any allowed primitive type (allowed: ["integer"])\''
        assert refusal(rule(KEEP, priority=value)) == expected
        assert refusal(rule({**KEEP, "countNumber": value})) == expected

    def test_what_no_integer_can_hold(self) -> None:
        assert refusal(rule(KEEP, priority=2**31)) == UNREADABLE
        assert refusal(rule({**KEEP, "countNumber": 10**30})) == UNREADABLE

    def test_a_null_description(self) -> None:
        assert refusal(rule(KEEP, description=None)).startswith("instance type (null) does not match")

    @pytest.mark.parametrize(
        ("action", "expected"),
        [
            ({}, missing("type")),
            ({"type": "expire", "unknown": 123}, unknown("unknown")),
            (
                {"type": "keep"},
                'instance value (keep) not found in enum :(possible values: ["expire", "transition"])\'',
            ),
            ({"type": "transition"}, UNREADABLE),
            ({"type": "expire", "targetStorageClass": "archive"}, NO_SCHEMA),
            ({"type": "expire", "targetStorageClass": None}, NO_SCHEMA),
            (
                {"type": "transition", "targetStorageClass": "standard"},
                'instance value (standard) not found in enum :(possible values: ["archive"])\'',
            ),
        ],
    )
    def test_action(self, action: object, expected: str) -> None:
        assert refusal(rule(KEEP, action)) == expected

    @pytest.mark.parametrize(
        ("selection", "expected"),
        [
            *((without(KEEP, name), missing(name)) for name in KEEP),
            ({**KEEP, "unknown": 123}, unknown("unknown")),
            (
                {**KEEP, "tagStatus": "unknown"},
                'instance value (unknown) not found in enum :(possible values: ["any", "tagged", "untagged"])\'',
            ),
            ({**KEEP, "countType": "unknown"}, NO_SCHEMA),
            (
                {**OLD, "countUnit": "unknown"},
                'instance value (unknown) not found in enum :(possible values: ["days"])\'',
            ),
            ({**OLD, "countUnit": None}, NO_SCHEMA),
            ({**KEEP, "countUnit": None}, NO_SCHEMA),
            ({**KEEP, "countNumber": 0}, "numeric instance is lower than the required minimum (minimum: 1, found: 0)"),
            (
                {**KEEP, "countNumber": -1},
                "numeric instance is lower than the required minimum (minimum: 1, found: -1)",
            ),
            ({**KEEP, "countUnit": "days"}, NO_SCHEMA),
            (without(OLD, "countUnit"), NO_SCHEMA),
            (
                {**KEEP, "storageClass": "glacier"},
                'instance value (glacier) not found in enum :(possible values: ["archive", "standard"])\'',
            ),
        ],
    )
    def test_selection(self, selection: object, expected: str) -> None:
        assert refusal(rule(selection)) == expected

    @pytest.mark.parametrize(
        ("selection", "part"),
        [
            (without(TAGGED, "tagPatternList"), "Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED."),
            ({**TAGGED, "tagPatternList": []}, "Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED."),
            ({**TAGGED, "tagPrefixList": ["v"]}, "it must specify only one of tagPrefixList or tagPatternList"),
            ({**KEEP, "tagPrefixList": ["v"]}, "Cannot specify tagPrefixList with tagStatus untagged"),
            ({**OLD, "tagPatternList": ["v"]}, "Cannot specify tagPatternList with tagStatus any"),
            ({**TAGGED, "tagPatternList": ["a*b*c*d*e*"]}, "Invalid tag pattern provided"),
            ({**TAGGED, "tagPatternList": [1]}, "instance type (integer) does not match"),
            ({**TAGGED, "tagPatternList": "v*"}, "instance type (string) does not match"),
            ({**TAGGED, "tagPatternList": [""]}, "is too short"),
            ({**KEEP, "storageClass": "archive"}, "IMAGE_COUNT_MORE_THAN support the STANDARD storage class only"),
            ({**OLD, "storageClass": "archive"}, "SINCE_IMAGE_PUSHED"),
            (UNUSED, "SINCE_IMAGE_PULLED supports the TRANSITION action only"),
            (without(GONE, "storageClass"), "SINCE_IMAGE_TRANSITIONED supports the ARCHIVE storage class only"),
            ({**GONE, "countNumber": 30}, "(minimum: 90, found: 30)"),
        ],
    )
    def test_a_selection_that_contradicts_itself(self, selection: object, part: str) -> None:
        assert part in refusal(rule(selection))

    def test_the_archive_cannot_be_moved_to_the_archive(self) -> None:
        assert "SINCE_IMAGE_TRANSITIONED supports the EXPIRE action only" in refusal(rule(GONE, ARCHIVE))


class TestRules:
    def test_a_rule_for_any_image_comes_last(self) -> None:
        expected = "Rule for tagStatus=ANY must have the lowest priority per storage class"
        assert expected in refusal(rule(OLD), rule(KEEP, priority=2))
        assert expected in refusal(rule(KEEP, priority=2), rule(OLD))
        assert expected in refusal(rule(OLD), rule({**OLD, "countNumber": 3}, priority=2))

    def test_one_rule_for_untagged_images(self) -> None:
        found = refusal(rule(KEEP), rule({**KEEP, "countNumber": 3}, priority=2))
        assert found == "Only one rule can select Untagged images per storage class.'"

    def test_a_priority_is_given_once(self) -> None:
        assert "Duplicate priority in multiple rules" in refusal(rule(KEEP), rule(TAGGED))

    def test_the_same_tags_are_selected_once(self) -> None:
        twice = {**TAGGED, "tagPatternList": ["w*", "v*"]}
        again = {**TAGGED, "tagPatternList": ["v*", "w*"], "countNumber": 7}
        assert "Duplicate tagPatternList" in refusal(rule(twice), rule(again, priority=2))

    def test_the_shape_of_every_rule_is_looked_at_first(self) -> None:
        assert refusal({}, "text").startswith("instance type (string)")

    def test_an_action_is_looked_at_before_a_selection(self) -> None:
        assert refusal(rule({}, {})) == missing("type")


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["any", "expire"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*TAGGED, *GONE, *rule(KEEP), "type", "rules", "x"]), inner, max_size=6)
    ),
    max_leaves=12,
)


@given(documents)
def test_whatever_is_written_is_a_policy_or_refused(document: object) -> None:
    for text in (json.dumps(document), json.dumps({"rules": document}), json.dumps({"rules": [document]})):
        try:
            parsed = parse_lifecycle_policy(text)
        except InvalidLifecyclePolicy:
            continue
        assert parse_lifecycle_policy(parsed.text) == parsed


@given(st.text(max_size=40))
def test_no_text_does_harm(text: str) -> None:
    with pytest.raises(InvalidLifecyclePolicy):
        parse_lifecycle_policy(text)
