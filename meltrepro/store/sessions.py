"""HTTP sessions that no server can keep busy: what is read at once has bounds in bytes and time.

Import this module late: requests takes a tenth of a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from meltrepro import __version__
from meltrepro.errors import SourceError
from meltrepro.store.names import redact

MOST_BYTES = 128 << 20
"""Of an answer that is not a file; the largest pages of a package index have a fifth of it."""
MOST_S = 300.0


def new_session() -> requests.Session:
    """A session; proxies, certificates and netrc come from the environment."""
    session = requests.Session()
    session.headers["User-Agent"] = f"meltrepro/{__version__}"
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter())
    return session


class _Adapter(HTTPAdapter):
    """Bounds the body of every answer that nobody streams to the disk: texts, and what comes with a redirection."""

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, *arguments: Any, **options: Any
    ) -> requests.Response:
        response = super().send(request, stream, *arguments, **options)
        if response.is_redirect or not stream:
            response.raw = _Bounded(response.raw, redact(request.url or ""))
        return response


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
