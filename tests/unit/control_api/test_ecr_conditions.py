"""The conditions that an ECR has to meet (ECR §19), each with the tests that show it.

A test that is renamed or taken away is missed here; what is not shown yet stands here with its reason.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
ACCEPTANCE, CONFORMANCE, CORE = "acceptance/", "conformance/", "unit/core/test_"
ECR, HERE, WHOLE = "integration/test_ecr_", "unit/control_api/test_", "integration/test_"

SHOWN: dict[int, tuple[str, ...]] = {
    # Wire.
    1: (
        f"{ACCEPTANCE}test_ecr_breadth.py::test_the_scripts_use_every_operation",
        f"{ECR}wire.py::test_an_operation_that_no_model_has_is_not_known",
    ),
    2: (
        f"{ECR}wire.py::test_every_operation_of_the_model_has_an_answer_of_the_model",
        f"{HERE}model.py::test_an_operation_has_the_shapes_and_errors_of_botocore",
    ),
    3: (
        f"{ACCEPTANCE}test_ecr_texts.py::test_a_repository_that_is_missing",
        f"{ACCEPTANCE}test_ecr_texts.py::test_failures_of_a_batch",
    ),
    4: (
        f"{ECR}wire.py::test_what_the_client_does_not_check_is_checked_here",
        f"{ACCEPTANCE}test_ecr_texts.py::test_what_the_client_does_not_check",
    ),
    5: (
        f"{ECR}images.py::test_images_come_in_push_order_in_pages_of_any_size",
        f"{ECR}images.py::test_what_is_pushed_and_deleted_between_pages_moves_nothing_else",
        f"{ECR}repositories.py::test_pages_go_on_where_the_last_one_ended",
    ),
    6: (
        f"{HERE}sigv4.py::test_another_secret_is_refused",
        f"{HERE}sigv4.py::test_an_old_signature_has_expired",
        f"{HERE}sigv4.py::test_another_body_is_refused",
        f"{HERE}sigv4.py::test_a_signature_for_elsewhere_is_refused",
    ),
    7: (
        f"{ACCEPTANCE}test_ecr_cli.py::test_an_image_is_pushed_with_the_password_of_the_login",
        f"{ECR}tokens.py::test_a_token_ends_after_twelve_hours",
        f"{ECR}tokens.py::test_a_token_holds_in_its_region_only",
    ),
    # Repositories.
    8: (
        f"{ECR}repositories.py::test_a_name_is_given_once",
        f"{ECR}layers.py::test_one_that_holds_images_goes_with_force_only",
    ),
    9: (f"{ECR}repositories.py::test_names_that_ecr_takes", f"{ECR}repositories.py::test_names_that_ecr_refuses"),
    10: (f"{ECR}repositories.py::test_a_resource_takes_so_many",),
    # Images.
    11: (f"{ECR}images.py::test_an_image_is_stored_exactly_as_it_was_written",),
    12: (f"{ECR}images.py::test_a_tag_that_moves_leaves_the_image_without_a_tag",),
    13: (f"{ECR}images.py::test_the_last_tag_takes_the_image_with_it",),
    14: (f"{ECR}images.py::test_a_digest_takes_all_tags_and_lists_each",),
    15: (f"{ECR}images.py::test_an_image_that_an_index_lists_stays_until_the_index_is_gone",),
    16: (f"{ECR}images.py::test_what_an_image_needs_must_be_here",),
    17: (f"{ECR}images.py::test_an_image_that_is_here_under_the_tag_exists_already",),
    18: (
        f"{ECR}layers.py::test_a_part_goes_on_where_the_last_one_ended",
        f"{ECR}layers.py::test_the_rule_is_about_five_mebibytes",
        f"{ECR}layers.py::test_after_a_wrong_digest_the_right_one_may_follow",
        f"{ECR}layers.py::test_an_upload_without_bytes",
    ),
    19: (
        f"{ECR}layers.py::test_a_layer_of_no_image_cannot_be_had",
        f"{WHOLE}registry_uploads.py::test_reclaim_spares_what_is_under_way",
    ),
    # Mutability.
    20: (
        f"{ECR}mutability.py::test_by_the_api",
        f"{ECR}mutability.py::test_by_the_registry",
        f"{ECR}mutability.py::test_by_replication",
        f"{WHOLE}pull_through_tags.py::test_tag_that_is_immutable_here_is_not_moved",
        f"{CORE}mutability.py::test_only_the_star_is_special",
    ),
    21: (f"{ECR}mutability.py::test_of_many_pushes_of_one_immutable_tag_one_wins",),
    # Lifecycle.
    22: (
        f"{CORE}lifecycle_evaluation.py::test_worked_example",
        f"{ECR}lifecycle.py::test_what_a_preview_shows",
        f"{ECR}lifecycle.py::test_what_is_refused",
    ),
    23: (
        f"{CORE}lifecycle_evaluation.py::test_no_order_changes_the_outcome",
        f"{CORE}lifecycle_evaluation.py::test_the_evaluation_agrees_with_a_naive_model",
    ),
    24: (f"{ECR}lifecycle.py::test_a_preview_changes_nothing",),
    # Replication.
    27: (
        f"{ECR}replication.py::test_a_put_replaces_everything_and_images_go_by_it",
        f"{ECR}replication.py::test_a_backfill_brings_what_was_there",
    ),
    28: (
        f"{ECR}replication.py::test_a_filter_is_a_literal_start_of_the_name",
        f"{CORE}replication.py::test_destinations_of_all_matching_rules_are_united",
    ),
    29: (f"{WHOLE}replication.py::test_a_replica_goes_no_further_in_a_ring",),
    30: (
        f"{WHOLE}replication_disorder.py::test_without_delete_replication_the_destination_keeps_what_it_has",
        f"{WHOLE}replication_disorder.py::test_a_deleted_tag_and_a_deleted_image_go_at_the_destination_too",
    ),
    31: (f"{WHOLE}replication_failures.py::test_replication_creates_the_repository_where_a_push_may_not",),
    32: (
        f"{WHOLE}replication_failures.py::test_another_account_is_refused_until_it_is_accepted",
        f"{WHOLE}run_time_settings.py::test_a_foreign_account_comes_in_while_a_statement_lets_it",
        f"{WHOLE}sec_access.py::test_sec_33_a_registry_takes_only_from_accounts_that_its_policy_names",
    ),
    33: (f"{WHOLE}replication.py::test_an_immutable_tag_stays_with_its_owner_and_the_image_is_complete",),
    34: (f"{ACCEPTANCE}test_regions.py::test_an_index_arrives_with_all_platforms",),
    35: (
        f"{WHOLE}replication_failures.py::test_a_destination_that_was_down_catches_up_by_itself",
        f"{WHOLE}replication_failures.py::test_a_source_killed_in_the_middle_takes_the_job_up_again",
    ),
    36: (f"{WHOLE}replication.py::test_a_tag_that_moves_quickly_ends_at_the_last_image",),
    37: (
        f"{ECR}replication.py::test_the_limits_and_senseless_destinations_are_refused",
        f"{ECR}replication.py::test_twenty_five_destinations_are_the_most",
    ),
    38: (
        f"{ECR}replication.py::test_a_backfill_brings_what_was_there",
        f"{ECR}replication.py::test_an_unknown_backfill_is_not_found",
        f"{ECR}quotas.py::test_backfills_in_progress",
    ),
    # Pull-through cache.
    39: (
        f"{ECR}cache_rules.py::test_names_are_mapped_as_ecr_maps_them",
        f"{ECR}cache_rules.py::test_the_longest_prefix_answers_and_a_slash_is_implied",
    ),
    40: (f"{ECR}cache_rules.py::test_a_tag_is_asked_about_once_a_day",),
    41: (
        f"{WHOLE}pull_through_tags.py::test_any_upstream_failure_serves_the_cached_image",
        f"{WHOLE}pull_through_tags.py::test_every_cold_waiter_gets_the_failure",
    ),
    42: (f"{WHOLE}pull_through_tags.py::test_fifty_cold_clients_cost_one_fetch",),
    43: (f"{WHOLE}replication_of_cached.py::test_an_imported_index_is_replicated_with_all_its_images",),
    44: (
        f"{ECR}access.py::test_a_missing_repository_is_only_made_for_whoever_may",
        f"{ECR}access.py::test_what_is_here_is_all_there_is_for_whoever_may_not_import",
        f"{ECR}access.py::test_a_repository_that_is_there_is_filled_for_whoever_may_make_none",
    ),
    45: (f"{WHOLE}pull_through_tags.py::test_tag_that_is_immutable_here_is_not_moved",),
    46: (
        f"{ECR}cache_rules.py::test_what_ecr_does_not_take_is_refused",
        f"{ECR}cache_rules.py::test_validation_connects_and_logs_in",
    ),
    47: (
        f"{WHOLE}replication_of_cached.py::test_an_imported_image_is_replicated_with_blobs_that_nobody_has_pulled_yet",
        f"{ECR}scanning.py::test_of_an_image_that_the_cache_brought",
    ),
    # Templates, scanning, archive.
    48: (
        f"{ECR}templates.py::test_a_push_makes_a_repository_by_the_template_that_fits_best",
        f"{ECR}creation.py::test_without_a_template_a_push_finds_no_repository",
    ),
    49: (
        f"{CORE}scanning.py::test_filters_match_as_the_table_says",
        f"{CORE}scanning.py::test_a_continuous_scan_beats_one_on_push",
        f"{ECR}scanning.py::test_scans_on_push_count",
    ),
    50: (
        f"{ECR}archive.py::test_an_archived_image_cannot_be_pulled",
        f"{ECR}archive.py::test_an_archived_image_is_kept_and_shown_only_to_who_asks_for_it",
        f"{ECR}archive.py::test_an_image_is_active_again_after_a_while",
        f"{ECR}archive.py::test_a_push_of_it_brings_an_image_back_at_once",
        f"{ECR}archive.py::test_moves_that_lead_nowhere_are_refused",
    ),
    # Policies, ECR Public, the specification of the registry.
    51: (
        f"{CORE}policy_evaluation.py::test_what_three_documents_say_together",
        f"{CORE}policy_evaluation.py::test_whom_a_principal_names",
        f"{CORE}policy_conditions.py::test_each_operator_compares_in_its_way",
        f"{ECR}policies.py::test_scope_v1_takes_three_actions_and_decides_on_these_only",
        f"{ECR}policies.py::test_a_policy_that_locks_the_caller_out_needs_force",
    ),
    52: (
        f"{ECR}public_access.py::test_everybody_may",
        f"{ECR}public_access.py::test_the_permission_is_that_of_ecr_public",
        f"{ECR}public.py::test_a_registry_that_nobody_has",
        f"{ECR}public_access.py::test_a_password_becomes_a_token_of_the_same_principal",
    ),
    53: (f"{CONFORMANCE}test_blobs.py::test_push_to_delete",),
}

LATER: dict[int, str] = {
    22: "policies are not carried out yet: shown through the evaluation and the preview only",
    24: "policies are not carried out yet: there is no execution that a preview could be equal to",
    25: "policies are not carried out yet",
    26: "policies are not carried out yet",
}
"""Conditions of which a part, or all, cannot be shown yet."""


def test_every_condition_is_shown_or_has_its_reason() -> None:
    assert set(SHOWN) | set(LATER) == set(range(1, 54))


@pytest.mark.parametrize("number", SHOWN)
def test_the_tests_of_a_condition_are_there(number: int) -> None:
    for named in SHOWN[number]:
        path, name = named.split("::")
        text = (TESTS / path).read_text()
        assert re.search(rf"^ *(async )?def {name}\(", text, re.MULTILINE), named
