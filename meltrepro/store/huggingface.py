"""Sources of kind `huggingface`: files of a repository at a commit, from the hub that HF_ENDPOINT names."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from meltrepro.errors import DigestMismatch, SourceError
from meltrepro.manifest.sources import HuggingFaceSource
from meltrepro.store.download import FileRequest
from meltrepro.store.http import check_status, network_errors
from meltrepro.store.names import redact
from meltrepro.store.source import Context, Pin, key_of
from meltrepro.untrusted import load_json, whole_number

if TYPE_CHECKING:
    import requests


class HuggingFace:
    def resolve(self, source: HuggingFaceSource, context: Context) -> Pin:
        """Ask for size and digest, which the hub knows of large files; transfer a small one."""
        key = key_of(source)
        context.downloader.require_network(key)
        digest, size = self._listed(source, context)
        if digest is None or size is None:
            digest = context.downloader.download(_request(source, source.digest or digest))
            size = context.store.size(digest)
        if source.digest not in (None, digest):
            raise DigestMismatch(
                f"{key}: pinned to sha256 {source.digest}, but the hub has {digest}",
                hint="check revision and file; a file at a commit never changes, so the pin is of another one",
            )
        return Pin(source=key, digest=digest, size=size, filename=_file(source).rpartition("/")[2])

    def fetch(self, source: HuggingFaceSource, pin: Pin, context: Context) -> None:
        context.downloader.download(_request(source, pin.digest))

    def transfer_size(self, source: HuggingFaceSource, context: Context) -> int | None:
        """Size of the file, as the hub says."""
        return self._listed(source, context)[1]

    def _listed(self, source: HuggingFaceSource, context: Context) -> tuple[str | None, int | None]:
        """What the hub says of a file without sending it: sha256, of large files, and size in bytes."""
        response = context.downloader.head(_request(source, None))
        if response is None:
            return None, None
        headers: dict[str, str] = {}
        for answer in (response, *reversed(response.history)):  # the hub's own answer, before it sends one elsewhere
            headers |= {name.lower(): value for name, value in answer.headers.items()}
        etag = headers.get("x-linked-etag", "").strip('"')
        size = headers.get("x-linked-size") or response.headers.get("Content-Length", "")
        return etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None, whole_number(size)


def list_files(source: HuggingFaceSource, context: Context) -> list[str]:
    """Names of the files in the top folder of a repository at a commit.

    Raises `SourceError` where the hub refuses or knows no such repository, `DownloadError` and `OfflineError`.
    """
    key = key_of(source)
    context.downloader.require_network(key)
    request = _request(source.model_copy(update={"file": "config.json"}), None)
    page, _, _ = request.url.partition(f"/{source.huggingface}/resolve/")
    url = f"{page}/api/models/{source.huggingface}/revision/{source.revision}"
    retry = context.downloader.retry

    def ask() -> list[str]:
        with (
            network_errors(key, url),
            context.downloader.session.get(
                url, auth=request.auth, timeout=(retry.connect_s, retry.silence_s)
            ) as response,
        ):
            check_status(response, key, url, request.explain)
            try:
                return [str(entry["rfilename"]) for entry in load_json(response.content)["siblings"]]
            except (ValueError, KeyError, TypeError):
                raise SourceError(
                    f"{key}: {redact(page)} does not answer like a hub", hint="check HF_ENDPOINT, which names the hub"
                ) from None

    return [name for name in context.downloader.insist(key, url, ask) if "/" not in name]


def _file(source: HuggingFaceSource) -> str:
    assert source.file is not None, "a checkpoint is fetched file by file"
    return source.file


def _request(source: HuggingFaceSource, digest: str | None) -> FileRequest:
    from huggingface_hub import get_token, hf_hub_url

    from meltrepro.store.sessions import own_login

    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    url = hf_hub_url(source.huggingface, _file(source), revision=source.revision, endpoint=endpoint)
    page = redact(url.partition("/resolve/")[0])
    token = get_token()
    access = f"if it is a gated model, accept its terms at {page} with your account; " + (
        "then see that the token in use belongs to that account" if token else "then set HF_TOKEN to a token of yours"
    )
    missing = f"check repository, revision and file at {page}" + ("" if token else "; a private one needs HF_TOKEN")
    return FileRequest(
        url,
        key_of(source),
        digest,
        auth=_Bearer(token) if token else own_login(url) if endpoint else None,
        explain={401: access, 403: access, 404: missing},
    )


class _Bearer:
    """Signs requests to the hub; requests itself drops the signature when it is sent on to another server."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request
