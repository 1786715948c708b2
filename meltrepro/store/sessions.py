"""HTTP sessions that no server can keep busy or lead astray: bounds in bytes and time, no login that nobody meant for it.

Import this module late: requests takes a tenth of a second.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import truststore
from requests.adapters import HTTPAdapter
from requests.utils import get_auth_from_url, get_netrc_auth

from meltrepro import __version__
from meltrepro.errors import SourceError
from meltrepro.store.names import redact
from meltrepro.store.proxies import ca_bundle

MOST_BYTES = 128 << 20
"""Of an answer that is not a file; the largest pages of a package index have a fifth of it."""
MOST_S = 300.0


def new_session(logins: Collection[str] = ()) -> requests.Session:
    """A session with the proxies and certificates of the environment; `logins` are hosts that get theirs from ~/.netrc."""
    session = _Session(frozenset(logins))
    session.headers["User-Agent"] = f"meltrepro/{__version__}"
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter())
    return session


def own_login(url: str) -> tuple[str, str] | None:
    """The login that ~/.netrc has for a server that the user named."""
    return get_netrc_auth(url)


class _Session(requests.Session):
    """Takes no login from ~/.netrc for a server that only a manifest names, and is led from https to http by nobody."""

    def __init__(self, logins: frozenset[str]) -> None:
        super().__init__()
        self._logins = logins

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        if request.auth is None and self.auth is None:
            url = str(request.url)
            written = get_auth_from_url(url)
            named = urlsplit(url).hostname in self._logins
            request.auth = written if any(written) else (get_netrc_auth(url) if named else None) or _nobody
        return super().prepare_request(request)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Leave the login behind on the way to another server; what ~/.netrc has for that one is nobody's business."""
        strip: Callable[[str, str], bool] = self.should_strip_auth
        if strip(str(response.request.url), str(prepared_request.url)):
            prepared_request.headers.pop("Authorization", None)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is not None and resp.url.startswith("https:"):
            to = urljoin(resp.url, target)
            if urlsplit(to).scheme == "http":
                raise SourceError(
                    f"{redact(resp.url)} leads from https to {redact(to)}, where anybody on the way can change what comes",
                    hint="if that is wanted, name the http address itself",
                )
        return target


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class _Adapter(HTTPAdapter):
    """Trusts whom the system trusts, and certifi's list; bounds the body of every answer that nobody streams to the disk."""

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **_trust(), **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **_trust(), **options)

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, *arguments: Any, **options: Any
    ) -> requests.Response:
        response = super().send(request, stream, *arguments, **options)
        if response.is_redirect or not stream:
            response.raw = _Bounded(response.raw, redact(request.url or ""))
        return response


def _trust() -> dict[str, Any]:
    """SSL_CERT_FILE and SSL_CERT_DIR count as the system's; a bundle that requests itself knows of stands alone."""
    return {} if ca_bundle() is not None else {"ssl_context": truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}


class _Bounded:
    """A body that ends in time, or raises; like the one that it stands before in everything else."""

    def __init__(self, raw: Any, url: str) -> None:
        self._raw = raw
        self._url = url

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, size: int, decode_content: bool | None = None) -> Iterator[bytes]:
        """The pieces as they arrive; one that is waited for until it is full could take for ever."""
        until, left = time.monotonic() + MOST_S, MOST_BYTES
        while piece := self._raw.read1(size, decode_content=decode_content):
            left -= len(piece)
            if left < 0:
                raise SourceError(f"{self._url}: the answer has more than {MOST_BYTES >> 20} MiB", hint=_HINT)
            if time.monotonic() > until:
                raise SourceError(f"{self._url}: the answer has not ended after {MOST_S:.0f} s", hint=_HINT)
            yield piece


_HINT = "see that the address is the one of the server that you mean"
