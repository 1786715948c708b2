"""One way in for bytes behind URLs: streamed to the disk, resumed where they broke off, checked before they count.

What has arrived is kept under `partial/` until it is complete. It is resumed where the digest of the whole is known,
which settles in the end whether the pieces belong together, or where the server vouches for that with a validator.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

from meltrepro.atomic import remove, require_free, writing
from meltrepro.errors import DigestMismatch, DownloadError, OfflineError, SourceError, StoreError
from meltrepro.steps import Sink, Step, step
from meltrepro.store.cas import Store
from meltrepro.store.http import Transient, check_status, content_length, content_range, network_errors, validator
from meltrepro.store.names import local_path, redact, split_url, text_digest
from meltrepro.words import readable

if TYPE_CHECKING:
    import requests

T = TypeVar("T")
Auth = tuple[str, str] | Callable[["requests.PreparedRequest"], "requests.PreparedRequest"]

_CHUNK = 1 << 16
"""What at most is lost of a transfer that breaks off."""
_PROGRESS_S = 0.1
_PAGE_HINT = "open the address in a browser: the network may want a login first, or the address may be that of a page about the file"
_IDENTITY = {"Accept-Encoding": "identity"}


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for a server; all times in seconds."""

    attempts: int = 5
    """Tries in a row that bring no byte before a download is given up."""
    connect_s: float = 10
    silence_s: float = 30
    """A transfer that brings nothing for this long has stalled."""
    pause_s: float = 0.5
    """Before the second try; doubles with every further one."""
    longest_pause_s: float = 15


DEFAULT_RETRY = RetryPolicy()


@dataclass(frozen=True)
class FileRequest:
    url: str
    name: str
    """Canonical name of the source, for messages and progress."""
    digest: str | None = None
    auth: Auth | None = field(default=None, repr=False)
    explain: Mapping[int, str] = field(default_factory=dict)
    """HTTP status -> what to do next."""


@dataclass
class _Part:
    """What has arrived of a file in the course of one call."""

    path: Path
    known: bool
    """Whether the digest of the whole is known."""
    validator: str | None = None
    total: int | None = None

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def resume_at(self) -> int:
        return self.size if self.known or self.validator is not None else 0

    def restart(self) -> None:
        self.validator = self.total = None
        remove(self.path)


class Downloader:
    """Downloads into one store; `offline` refuses the network."""

    def __init__(
        self,
        store: Store,
        sink: Sink,
        *,
        offline: bool = False,
        retry: RetryPolicy = DEFAULT_RETRY,
        logins: frozenset[str] = frozenset(),
    ) -> None:
        """`logins` are hosts that the user named, so that they get their login from ~/.netrc."""
        self._store = store
        self.logins = logins
        self._sink = sink
        self.offline = offline
        self.retry = retry

    def require_network(self, name: str) -> None:
        """Raise `OfflineError` for the source `name` where the network may not be used."""
        if self.offline:
            raise OfflineError(
                f"offline, and the store does not hold {name}",
                hint="fetch it once without MELTREPRO_OFFLINE, name a local copy in a mirror map (MELTREPRO_MIRRORS), "
                "or import a bundle that holds it",
            )

    @cached_property
    def session(self) -> requests.Session:
        from meltrepro.store.sessions import new_session

        return new_session(self.logins)

    def download(self, request: FileRequest) -> str:
        """Bring a file into the store; returns its sha256.

        Raises `SourceError` (it is not there, or access is refused), `DownloadError` (broke off; what arrived is
        kept), `DigestMismatch` (nothing is kept), `OfflineError` and `StoreError`.
        """
        if split_url(request.url).scheme == "file":
            with step(self._sink, "fetch", request.name):
                return self._store.put_file(file_url_path(request.url), expected=request.digest)
        key = request.digest or text_digest(request.url)
        with self._store.lock(f"fetch-{key}", lambda message: self._note(request.name, message)):
            if request.digest is not None and self._store.has(request.digest):
                self._store.verify(request.digest)  # another process was faster
                return request.digest
            self.require_network(request.name)
            with step(self._sink, "fetch", request.name):
                return self._complete(request, _Part(self._store.partial(key), request.digest is not None))

    def head(self, request: FileRequest) -> requests.Response | None:
        """The answer to a HEAD request, redirects followed; `None` for whatever goes wrong. Takes seconds at most."""
        import requests

        if self.offline:
            return None
        try:
            response = self.session.head(
                request.url, headers=_IDENTITY, auth=request.auth, allow_redirects=True, timeout=(3, 5)
            )
        except (requests.RequestException, ValueError):
            return None
        return response if response.ok else None

    def length(self, request: FileRequest) -> int | None:
        """Size of a file in bytes, as its server says, or `None`. Takes seconds at most."""
        response = self.head(request)
        return None if response is None else content_length(response)

    def insist(self, name: str, url: str, attempt: Callable[[], T], reached: Callable[[], int] = lambda: 0) -> T:
        """Call `attempt` until it returns, or has raised `Transient` too often without getting beyond what `reached`.

        Raises `DownloadError` then; other errors pass.
        """
        from tenacity import RetryCallState, Retrying, retry_if_exception_type
        from tenacity.wait import wait_exponential_jitter

        retry = self.retry
        growing = wait_exponential_jitter(multiplier=retry.pause_s, max=retry.longest_pause_s, jitter=retry.pause_s)
        best, fruitless = reached(), 0

        def give_up(_: RetryCallState) -> bool:
            nonlocal best, fruitless
            fruitless = 0 if reached() > best else fruitless + 1
            best = max(best, reached())
            return fruitless >= retry.attempts

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after_s if isinstance(error, Transient) else 0
            return max(min(asked, 60), growing(state) if fruitless else retry.pause_s)

        def tell(state: RetryCallState) -> None:
            self._note(name, f"{state.outcome.exception() if state.outcome else ''}; trying again")

        again = retry_if_exception_type(Transient)
        try:
            return Retrying(retry=again, stop=give_up, wait=pause, before_sleep=tell, reraise=True)(attempt)
        except Transient as error:
            kept = f"; {readable(reached())} are kept" if reached() else ""
            raise DownloadError(
                f"{name}: {error} ({redact(url)}){kept}",
                hint=error.hint,
            ) from None

    # -- one file -------------------------------------------------------------------------------------------------

    def _complete(self, request: FileRequest, part: _Part) -> str:
        """Transfer what is missing and check the whole."""
        if not part.known:
            part.restart()  # left by an earlier call, and nothing says that it is of the same file
        resumed = part.size > 0
        self.insist(request.name, request.url, lambda: self._transfer(request, part), lambda: part.size)
        subject = f"{request.name} ({redact(request.url)})"
        page = is_page(part.path)
        if page and request.digest is None:
            part.restart()
            raise _page(request)
        try:
            return self._store.put_file(part.path, move=True, expected=request.digest, subject=subject)
        except DigestMismatch as error:
            part.restart()
            if page:
                raise DigestMismatch(f"{error.message}: what came is a web page", hint=_PAGE_HINT) from error
            if not resumed:
                raise
            self._note(request.name, "what an earlier call had left does not fit; starting anew")
            return self._complete(request, part)

    def _transfer(self, request: FileRequest, part: _Part) -> None:
        """One request; when it returns, the part is complete. Raises `Transient` where it is not."""
        offset = part.resume_at
        headers = {**_IDENTITY}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if part.validator is not None:
                headers["If-Range"] = part.validator
        timeout = (self.retry.connect_s, self.retry.silence_s)
        with (
            network_errors(request.name, request.url),
            self.session.get(request.url, headers=headers, auth=request.auth, stream=True, timeout=timeout) as response,
        ):
            if response.status_code == 416 and offset:
                if content_range(response)[1] == offset:
                    return  # everything had arrived already
                part.restart()
                raise Transient("what had arrived is longer than the file on the server")
            check_status(response, request.name, request.url, request.explain)
            start, total, version = 0, content_length(response), validator(response)
            if response.status_code == 206:
                first, total = content_range(response)
                if first != offset or part.validator not in (None, version) or part.total not in (None, total):
                    part.restart()
                    raise Transient("the file changed on the server")
                start = offset
            part.validator, part.total = version, total
            self._receive(response, request, part, start)

    def _receive(self, response: requests.Response, request: FileRequest, part: _Part, start: int) -> None:
        if part.total is not None:
            require_free(part.path, part.total - start)
        blocks = response.raw.stream(_CHUNK, decode_content=False)
        first = next(blocks, b"")
        if start < part.size and looks_like_page(first) and not is_page(part.path):
            raise _page(request)  # what had arrived stays: a network's login page is no file
        done, shown = start, 0.0
        with writing(part.path, part.total):
            file = part.path.open("r+b" if start else "wb", buffering=0)
        with file:
            file.seek(start)
            for block in itertools.chain((first,), blocks):
                self._append(file.write, block, part)
                done += len(block)
                if time.monotonic() - shown > _PROGRESS_S:
                    shown = time.monotonic()
                    self._progress(request, done, part.total)
        self._progress(request, done, part.total)
        if part.total is not None and done > part.total:
            part.restart()
            raise Transient("the server sent more than it had announced")
        if part.total is not None and done < part.total:
            raise Transient(f"the transfer broke off at {readable(done)} of {readable(part.total)}")

    def _append(self, write: Callable[[memoryview], int], block: bytes, part: _Part) -> None:
        view = memoryview(block)
        try:
            with writing(part.path, part.total):
                while view:
                    view = view[write(view) :]
        except StoreError:
            remove(part.path)  # a full disk: what cannot be finished must not fill it
            raise

    def _progress(self, request: FileRequest, done: int, total: int | None) -> None:
        self._sink(Step("fetch", "progress", request.name, done=done, total=total, unit="bytes"))

    def _note(self, name: str, message: str) -> None:
        self._sink(Step("fetch", "note", name, detail={"status": message}))


def is_page(path: Path) -> bool:
    """Whether a file is a web page."""
    try:
        with path.open("rb") as file:
            return looks_like_page(file.read(512))
    except OSError:
        return False


def looks_like_page(head: bytes) -> bool:
    """Whether bytes are the beginning of a web page."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))


def _page(request: FileRequest) -> SourceError:
    return SourceError(f"{request.name}: a web page came in place of the file ({redact(request.url)})", hint=_PAGE_HINT)


def file_url_path(url: str) -> Path:
    """The local file that a file URL names; raises `SourceError` for one of another machine."""
    parts = split_url(url)
    if parts.netloc not in ("", "localhost"):
        raise SourceError(
            f"{redact(url)}: a file URL can only name a file of this machine", hint="file:///path/to/file"
        )
    return local_path(Path("/"), unquote(parts.path))
