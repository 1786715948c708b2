"""Sources of kind `huggingface`: files of a repository at a commit, from the hub that HF_ENDPOINT names."""

from __future__ import annotations

import difflib
import os
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from meltrepro.errors import DigestMismatch, SourceError
from meltrepro.manifest.base import Commit
from meltrepro.manifest.lock import LockedName
from meltrepro.manifest.sources import HuggingFaceSource, files_of
from meltrepro.store.download import FileRequest
from meltrepro.store.http import check_status, network_errors
from meltrepro.store.names import redact
from meltrepro.store.source import Context, Pin, key_of
from meltrepro.untrusted import parse, whole_number
from meltrepro.words import visible

if TYPE_CHECKING:
    import requests

_NEWEST = "main"
_LONGEST = 200
"""Of a licence's name."""


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
    """Paths of the files in a repository at a commit.

    Raises `SourceError` where the hub refuses or knows no such repository, `DownloadError` and `OfflineError`.
    """
    return _ask(source, context).names


def newest(source: HuggingFaceSource, context: Context) -> LockedName:
    """What a source without a commit stands for now.

    Raises `SourceError` where the hub knows no such repository, or that has no such file or no checkpoint, and what
    `list_files` raises.
    """
    from meltrepro.store import checkpoint

    found = _ask(source, context)
    if source.file is None:
        checkpoint.chosen(key_of(source), found.names)
    missing = [name for name in files_of(source) if name not in found.names]
    if missing:
        near = difflib.get_close_matches(missing[0], found.names, n=3) or [
            n for n in found.names if n.endswith(".gguf")
        ]
        raise SourceError(
            f"{key_of(source)}: the repository has no file {missing[0]}",
            hint=f"did you mean {', '.join(near[:5])}?"
            if near
            else f"it has {', '.join(found.names[:5]) or 'no files'}",
        )
    return LockedName(revision=found.sha, licence=found.licence)


class _File(BaseModel):
    rfilename: str


class _Repository(BaseModel):
    """What the hub says of a repository, as far as it matters here."""

    sha: Commit
    siblings: list[_File]
    card: Any = Field(None, alias="cardData")
    """What its authors wrote at the top of its page; anything."""

    @property
    def names(self) -> list[str]:
        return [each.rfilename for each in self.siblings]

    @property
    def licence(self) -> str | None:
        """By its name on the hub, or that of its own where the hub has none for it."""
        card = self.card if isinstance(self.card, dict) else {}
        said = [card.get("license"), card.get("license_name")]
        found = [visible(each)[:_LONGEST] for each in said if isinstance(each, str) and each]
        return found[-1] if found else None


def _ask(source: HuggingFaceSource, context: Context) -> _Repository:
    key = key_of(source)
    context.downloader.require_network(key)
    revision = source.revision or _NEWEST
    request = _request(source.model_copy(update={"file": "config.json", "revision": revision}), None)
    page, _, _ = request.url.partition(f"/{source.huggingface}/resolve/")
    url = f"{page}/api/models/{source.huggingface}/revision/{revision}"
    retry = context.downloader.retry

    def ask() -> _Repository:
        with (
            network_errors(key, url),
            context.downloader.session.get(
                url, auth=request.auth, timeout=(retry.connect_s, retry.silence_s)
            ) as response,
        ):
            check_status(response, key, url, request.explain)
            try:
                return parse(_Repository, response.content)
            except ValueError:
                raise SourceError(
                    f"{key}: {redact(page)} does not answer like a hub", hint="check HF_ENDPOINT, which names the hub"
                ) from None

    return context.downloader.insist(key, url, ask)


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
    rate = "wait some minutes, then run the command again" + ("" if token else "; with HF_TOKEN the hub allows more")
    return FileRequest(
        url,
        key_of(source),
        digest,
        auth=_Bearer(token) if token else own_login(url) if endpoint else None,
        explain={401: access, 403: access, 404: missing, 429: rate},
    )


class _Bearer:
    """Signs requests to the hub; requests itself drops the signature when it is sent on to another server."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request
