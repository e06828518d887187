"""What is wrong with the file of the credential programs is said in the words of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicator.core.errors import ConfigurationError
from replicator.daemon.credential_settings import load_credential_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("regions: {}", "regions: unknown key"),
        ("registries: {localhost:5000: {regio: us-east-1}}", "registries.localhost:5000.region: is required"),
        (
            "registries: {localhost:5000: {region: us-east-1, endpoint_url: ftp://x}}",
            "registries.localhost:5000.endpoint_url: expected http://host or https://host, got 'ftp://x'",
        ),
        ("registries: [localhost]", "registries: expected a mapping, got a list"),
        ("- localhost", "expected a mapping, got a list"),
    ],
)
def test_a_file_that_is_wrong_is_told_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "credentials.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_credential_settings(path)
    assert str(caught.value) == f"{path}: {message}"
