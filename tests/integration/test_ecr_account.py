"""Account settings and the signing configuration, as boto3 sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.support.ecr_images import push
from tests.support.ecr_node import ACCOUNT, REGION, ecr_nodes
from tests.support.images import build_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes

IMAGE = build_image([b"image"])
PROFILE = f"arn:aws:signer:{REGION}:{ACCOUNT}:/signing-profiles/release"
OTHER_PROFILE = f"arn:aws:signer:{REGION}:{ACCOUNT}:/signing-profiles/audit"


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path) as nodes:
        yield nodes


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    found = error.value.response["Error"]
    return found["Code"], found["Message"]


def test_settings_have_ecrs_defaults_and_keep_what_was_put(ecr: EcrNodes) -> None:
    client = ecr.client()
    assert client.get_account_setting(name="BASIC_SCAN_TYPE_VERSION")["value"] == "AWS_NATIVE"
    assert client.get_account_setting(name="REGISTRY_POLICY_SCOPE")["value"] == "V2"
    put = client.put_account_setting(name="REGISTRY_POLICY_SCOPE", value="V1")
    assert (put["name"], put["value"]) == ("REGISTRY_POLICY_SCOPE", "V1")
    assert client.get_account_setting(name="REGISTRY_POLICY_SCOPE")["value"] == "V1"


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("COLOUR", "RED", "name"),
        ("BLOB_MOUNTING", "MAYBE", "value"),
        ("BASIC_SCAN_TYPE_VERSION", "V1", "value"),
        ("REGISTRY_POLICY_SCOPE", "v2", "value"),
    ],
)
def test_an_unknown_setting_or_value_is_refused(ecr: EcrNodes, name: str, value: str, field: str) -> None:
    with pytest.raises(ClientError) as error:
        ecr.client().put_account_setting(name=name, value=value)
    code, text = code_of(error)
    assert code == "InvalidParameterException"
    assert text.startswith(f"Invalid parameter at '{field}' failed to satisfy constraint: 'Member must satisfy enum")


def test_blobs_are_mounted_only_while_the_setting_says_so(ecr: EcrNodes) -> None:
    client = ecr.client()
    push(ecr, "team/app", IMAGE, "v1")
    blob = next(iter(IMAGE.blobs))
    path = f"/v2/team/other/blobs/uploads/?mount={blob}&from=team/app"
    client.put_account_setting(name="BLOB_MOUNTING", value="DISABLED")
    assert ecr.send("POST", path, b"").status == 202
    client.put_account_setting(name="BLOB_MOUNTING", value="ENABLED")
    assert ecr.send("POST", path, b"").status == 201


def test_a_signing_configuration_is_kept_and_deleted(ecr: EcrNodes) -> None:
    client = ecr.client()
    for ask in (client.get_signing_configuration, client.delete_signing_configuration):
        with pytest.raises(client.exceptions.SigningConfigurationNotFoundException) as error:
            ask()
        assert code_of(error)[1] == f"Signing configuration does not exist in the registry with id '{ACCOUNT}'"
    wanted = {
        "rules": [
            {"signingProfileArn": PROFILE, "repositoryFilters": [{"filter": "team/*", "filterType": "WILDCARD_MATCH"}]},
            {"signingProfileArn": OTHER_PROFILE},
        ]
    }
    assert client.put_signing_configuration(signingConfiguration=wanted)["signingConfiguration"] == wanted
    found = client.get_signing_configuration()
    assert (found["registryId"], found["signingConfiguration"]) == (ACCOUNT, wanted)
    assert client.delete_signing_configuration()["signingConfiguration"] == wanted
    with pytest.raises(client.exceptions.SigningConfigurationNotFoundException):
        client.get_signing_configuration()


def test_a_profile_of_another_region_is_refused(ecr: EcrNodes) -> None:
    with pytest.raises(ClientError) as error:
        ecr.client().put_signing_configuration(
            signingConfiguration={"rules": [{"signingProfileArn": PROFILE.replace(REGION, "eu-west-1")}]}
        )
    assert code_of(error)[0] == "InvalidParameterException"


def test_an_image_that_a_rule_matches_is_not_signed_and_says_why(ecr: EcrNodes) -> None:
    client = ecr.client()
    client.put_signing_configuration(
        signingConfiguration={
            "rules": [
                {
                    "signingProfileArn": PROFILE,
                    "repositoryFilters": [{"filter": "team/*", "filterType": "WILDCARD_MATCH"}],
                }
            ]
        }
    )
    push(ecr, "team/app", IMAGE, "v1")
    push(ecr, "elsewhere", IMAGE, "v1")
    found = client.describe_image_signing_status(repositoryName="team/app", imageId={"imageTag": "v1"})
    assert found["imageId"] == {"imageDigest": IMAGE.digest, "imageTag": "v1"}
    (status,) = found["signingStatuses"]
    assert (status["signingProfileArn"], status["status"]) == (PROFILE, "FAILED")
    assert (status["failureCode"], "no signer" in status["failureReason"]) == ("SignerNotAvailable", True)
    other = client.describe_image_signing_status(repositoryName="elsewhere", imageId={"imageDigest": IMAGE.digest})
    assert other["signingStatuses"] == []
    ecr.send("DELETE", f"/v2/team/app/manifests/{IMAGE.digest}")
    with pytest.raises(client.exceptions.ImageNotFoundException) as error:
        client.describe_image_signing_status(repositoryName="team/app", imageId={"imageTag": "v1"})
    assert code_of(error)[1] == (
        "The image with imageId {imageDigest:'null', imageTag:'v1'} does not exist within the repository with name"
        f" 'team/app' in the registry with id '{ACCOUNT}'"
    )
    client.delete_signing_configuration()
    push(ecr, "team/app", IMAGE, "v2")
    again = client.describe_image_signing_status(repositoryName="team/app", imageId={"imageTag": "v2"})
    assert again["signingStatuses"] == []
