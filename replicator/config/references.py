"""The things outside the file that it names: secrets and files, looked up before anything starts."""

from __future__ import annotations

import importlib.util
import shutil
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from replicator.config.identities import read_policy
from replicator.config.nodes import TlsSettings
from replicator.config.problems import Finding, KeyPath
from replicator.config.secrets import Secret, SecretRef, resolve_secret
from replicator.config.upstreams import AwsCredentialSettings, ClientCertificateSettings
from replicator.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from replicator.config.model import Settings

_FILE_KEYS = {"ca_file", "certificate", "key", "docker_config"}
MIN_SIGNING_SECRET = 16


def secrets_of(settings: Settings, environ: Mapping[str, str]) -> tuple[Secret, ...]:
    """Return every secret of a configuration, to be kept out of logs; raise ConfigurationError when one is missing.

    What is written in the file is none: in a log, a word like `test` is only a word.
    """
    refs = (value for _, value in _walk(settings, ()) if isinstance(value, SecretRef) and value.literal is None)
    return tuple(resolve_secret(ref, environ) for ref in refs)


def check_references(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding for every secret and file that is named but not there; no secret's value is in it."""
    for path, value in _walk(settings, ()):
        yield from _check(path, value, environ)


def _check(path: KeyPath, value: object, environ: Mapping[str, str]) -> Iterable[Finding]:
    if isinstance(value, SecretRef):
        return _check_secret(path, value, environ)
    if isinstance(value, Path) and path[-2:-1] == ("policy_files",):
        return _check_policy(path, value)
    if isinstance(value, Path) and path[-1] in _FILE_KEYS:
        return _check_file(path, value)
    if isinstance(value, (TlsSettings, ClientCertificateSettings)):
        return _check_pair(path, value)
    if isinstance(value, AwsCredentialSettings):
        return _check_botocore(path)
    if path[-2:] == ("credentials", "helper") and isinstance(value, str):
        return _check_helper(path, value, environ)
    return ()


def _check_botocore(path: KeyPath) -> Iterator[Finding]:
    if importlib.util.find_spec("botocore") is None:
        yield Finding(path, "needs botocore: install replicator[ecr]")


def _check_secret(path: KeyPath, ref: SecretRef, environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        secret = resolve_secret(ref, environ)
    except ConfigurationError as error:
        yield Finding(path, str(error))
        return
    # It signs what peers and identities say about themselves: one that can be guessed opens every node.
    signs = path == ("peer_secret",) or (path[0], path[-1]) in {("peers", "secret"), ("identities", "secret")}
    if signs and ref.literal is None and len(secret.reveal()) < MIN_SIGNING_SECRET:
        yield Finding(path, f"expected a secret of at least {MIN_SIGNING_SECRET} characters")


def _check_policy(path: KeyPath, file: Path) -> Iterator[Finding]:
    try:
        read_policy(file)
    except ConfigurationError as error:
        yield Finding(path, str(error))


def _check_file(path: KeyPath, file: Path) -> Iterator[Finding]:
    if not file.is_file():
        yield Finding(path, f"there is no file {file}")
    elif path[-1] == "ca_file":
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except OSError:  # an SSLError is one, too
            yield Finding(path, f"{file} holds no certificate in PEM form")


def _check_pair(path: KeyPath, tls: TlsSettings | ClientCertificateSettings) -> Iterator[Finding]:
    if not (tls.certificate.is_file() and tls.key.is_file()):
        return
    try:
        # The password of a key that has one is never asked for: nobody is there when a daemon starts.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ValueError):  # an SSLError is an OSError
        expected = "expected a certificate and its own private key, in PEM form and in clear"
        yield Finding(path, f"{expected}, got {tls.certificate} and {tls.key}")


def _check_helper(path: KeyPath, name: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    program = f"docker-credential-{name}"
    if shutil.which(program, path=environ.get("PATH")) is None:
        yield Finding(path, f"there is no program {program} on PATH")


def _walk(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    yield path, value
    if isinstance(value, BaseModel) and not isinstance(value, SecretRef):
        for name, field in type(value).model_fields.items():
            yield from _walk(getattr(value, name), (*path, field.alias or name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, index))
