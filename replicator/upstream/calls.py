"""The requests of the distribution protocol, as values: what is sent where, and what to call it in a message."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from yarl import URL

from replicator.core.media_types import ACCEPT_MANIFESTS, OCI_INDEX

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Mapping, Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.reference import Reference
    from replicator.upstream.endpoint import UpstreamEndpoint

PULL = ("pull",)
PUSH = ("pull", "push")
DELETE = ("pull", "push", "delete")

MANIFESTS, BLOBS, PUSHES = "manifests", "blobs", "pushes"
"""Kinds of call that an upstream throttles together; a manifest's is whatever is small and read."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to an upstream. `kind` groups the calls that an upstream throttles together; `what` is for messages.

    `repeatable` calls may be sent twice: they change nothing, or the same thing again, and their body is in memory.
    """

    method: str
    url: URL
    kind: str
    what: str
    repository: RepositoryName | None = None
    actions: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterable[bytes] | None = None
    mount_from: RepositoryName | None = None
    repeatable: bool = True
    answer_timeout: float | None = None


class Calls:
    """Builds the calls to one upstream. Names, tags and digests are parsed values: they fit a URL as they are."""

    def __init__(self, endpoint: UpstreamEndpoint) -> None:
        self._name = endpoint.name
        self._base = endpoint.api_url
        self._namespace = endpoint.namespace

    def ping(self) -> Call:
        """Build the call that asks whether the protocol is spoken (distribution-spec, end-1)."""
        return Call("GET", self._url("/v2/"), MANIFESTS, self._named("ping"))

    def manifest(self, method: str, repository: RepositoryName, reference: Reference) -> Call:
        """Build the call for a manifest or its head (end-3)."""
        return Call(
            method,
            self._url(f"/v2/{repository}/manifests/{reference}"),
            MANIFESTS,
            self._named(f"manifest {reference} of {repository}"),
            repository,
            PULL,
            {"Accept": ACCEPT_MANIFESTS},
        )

    def blob(self, method: str, repository: RepositoryName, digest: Digest, start: int = 0) -> Call:
        """Build the call for a blob from offset `start`, or its head (end-2)."""
        return Call(
            method,
            self._url(f"/v2/{repository}/blobs/{digest}"),
            BLOBS,
            self._named(f"blob {digest} of {repository}"),
            repository,
            PULL,
            {"Range": f"bytes={start}-"} if start else {},
        )

    def tags(self, repository: RepositoryName, page_size: int) -> Call:
        """Build the call that lists the tags of a repository (end-8b)."""
        return Call(
            "GET",
            self._url(f"/v2/{repository}/tags/list?n={page_size}"),
            MANIFESTS,
            self._named(f"tags of {repository}"),
            repository,
            PULL,
            {"Accept": "application/json"},
        )

    def referrers(self, repository: RepositoryName, subject: Digest, artifact_type: str | None = None) -> Call:
        """Build the call that lists the referrers of an image (end-12a, end-12b)."""
        query = "" if artifact_type is None else f"?artifactType={quote(artifact_type, safe='')}"
        return Call(
            "GET",
            self._url(f"/v2/{repository}/referrers/{subject}{query}"),
            MANIFESTS,
            self._named(f"referrers of {subject} in {repository}"),
            repository,
            PULL,
            {"Accept": OCI_INDEX},
        )

    def start_upload(
        self, repository: RepositoryName, digest: Digest, mount_from: RepositoryName | None, *, mount: bool
    ) -> Call:
        """Build the call that opens an upload session, or mounts the blob instead where it can (end-4a, end-11)."""
        query = f"?mount={quote(digest, safe='')}" if mount else ""
        if mount and mount_from is not None:
            query += f"&from={quote(mount_from, safe='')}"
        return Call(
            "POST",
            self._url(f"/v2/{repository}/blobs/uploads/{query}"),
            PUSHES,
            self._named(f"upload of blob {digest} to {repository}"),
            repository,
            PUSH,
            body=b"",
            mount_from=mount_from,
        )

    def upload(
        self,
        repository: RepositoryName,
        digest: Digest,
        location: URL,
        size: int,
    ) -> Call:
        """Build the call that sends `size` bytes, a whole blob or nothing, and ends its upload session (end-6)."""
        separator = "&" if location.raw_query_string else "?"
        return Call(
            "PUT",
            URL(f"{location}{separator}digest={quote(digest, safe='')}", encoded=True),
            PUSHES,
            self._named(f"upload of blob {digest} to {repository}"),
            repository,
            PUSH,
            {"Content-Type": "application/octet-stream", "Content-Length": str(size)},
        )

    def patch_upload(self, repository: RepositoryName, digest: Digest, location: URL, offset: int, size: int) -> Call:
        """Build the call that sends the bytes of a blob of `size` from `offset` to an upload session (end-5)."""
        return Call(
            "PATCH",
            location,
            PUSHES,
            self._named(f"upload of blob {digest} to {repository}"),
            repository,
            PUSH,
            {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size - offset),
                "Content-Range": f"{offset}-{size - 1}",
            },
        )

    def with_body(self, call: Call, body: AsyncIterable[bytes], answer_timeout: float) -> Call:
        """Return an upload's call with the bytes it sends, which cannot be sent twice."""
        return replace(call, body=body, repeatable=False, answer_timeout=answer_timeout)

    def upload_status(self, repository: RepositoryName, location: URL) -> Call:
        """Build the call that asks where an upload session stands (end-13)."""
        return Call("GET", location, PUSHES, self._named(f"status of an upload to {repository}"), repository, PUSH)

    def delete_manifest(self, repository: RepositoryName, reference: Reference) -> Call:
        """Build the call that deletes a manifest or a tag (end-9)."""
        return Call(
            "DELETE",
            self._url(f"/v2/{repository}/manifests/{reference}"),
            PUSHES,
            self._named(f"deletion of {reference} from {repository}"),
            repository,
            DELETE,
        )

    def cancel_upload(self, repository: RepositoryName, location: URL) -> Call:
        """Build the call that ends an upload session (end-14)."""
        return Call("DELETE", location, PUSHES, self._named(f"cancel of an upload to {repository}"), repository, PUSH)

    def put_manifest(
        self,
        repository: RepositoryName,
        reference: Reference,
        content: bytes,
        headers: Mapping[str, str],
        tags: Sequence[Tag] = (),
    ) -> Call:
        """Build the call that puts a manifest (end-7a), under `tags` as well (end-7b)."""
        query = "?" + "&".join(f"tag={tag}" for tag in tags) if tags else ""
        return Call(
            "PUT",
            self._url(f"/v2/{repository}/manifests/{reference}{query}"),
            PUSHES,
            self._named(f"put of manifest {reference} to {repository}"),
            repository,
            PUSH,
            headers,
            content,
        )

    def next_page(self, call: Call, location: URL) -> Call:
        """Build the call for what follows the page that `call` asked for."""
        return replace(call, url=self._of_namespace(location))

    def _url(self, path: str) -> URL:
        return self._of_namespace(URL(self._base + path, encoded=True))

    def _of_namespace(self, url: URL) -> URL:
        """Return `url` with the registry in it that we want of an upstream which stands for several."""
        if self._namespace is None or "ns" in url.query:
            return url
        separator = "&" if url.raw_query_string else "?"
        return URL(f"{url}{separator}ns={quote(self._namespace, safe='')}", encoded=True)

    def _named(self, what: str) -> str:
        return f"{self._name}: {what}"
