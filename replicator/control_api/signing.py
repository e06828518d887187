"""The signing configuration of a registry, and what became of the signing of an image (ECR §13.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.single_image import single_image
from replicator.core.signing import SigningConfiguration, SigningRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler
    from replicator.control_api.input import Input

_WILDCARD = "WILDCARD_MATCH"


async def put_signing_configuration(call: Call) -> Document:
    """Replace the configuration."""
    rules = call.input.structure("signingConfiguration").structures("rules")
    configuration = SigningConfiguration(tuple(_rule(one) for one in rules))
    await call.registry.run_time_settings.signing.put(configuration)
    return {"signingConfiguration": _document(configuration)}


async def get_signing_configuration(call: Call) -> Document:
    """Return the configuration."""
    return _answer(call, call.registry.run_time_settings.signing.get())


async def delete_signing_configuration(call: Call) -> Document:
    """Remove the configuration."""
    return _answer(call, await call.registry.run_time_settings.signing.delete())


async def describe_image_signing_status(call: Call) -> Document:
    """Return what became of the signings of an image."""
    image = single_image(call)
    digest, signings = await call.registry.signings.of_image(call.repository, image.digest, image.tag)
    statuses = [
        present(
            signingProfileArn=one.profile,
            status=one.status,
            failureCode=one.failure_code,
            failureReason=one.failure_reason,
        )
        for one in signings
    ]
    return {**call.place, "imageId": image.document(digest), "signingStatuses": statuses}


def _rule(rule: Input) -> SigningRule:
    filters = rule.structures("repositoryFilters")
    return SigningRule(rule.text("signingProfileArn"), tuple(one.text("filter") for one in filters))


def _answer(call: Call, configuration: SigningConfiguration) -> Document:
    return {"registryId": call.registry.names.id.account, "signingConfiguration": _document(configuration)}


def _document(configuration: SigningConfiguration) -> Document:
    return {"rules": [_rule_document(one) for one in configuration.rules]}


def _rule_document(rule: SigningRule) -> Document:
    filters = [{"filter": one, "filterType": _WILDCARD} for one in rule.filters]
    return present(signingProfileArn=rule.profile, repositoryFilters=filters or None)


HANDLERS: Mapping[str, Handler] = {
    "PutSigningConfiguration": put_signing_configuration,
    "GetSigningConfiguration": get_signing_configuration,
    "DeleteSigningConfiguration": delete_signing_configuration,
    "DescribeImageSigningStatus": describe_image_signing_status,
}
