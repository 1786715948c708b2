"""What servers and networks say, in our own words: which answers are final, which are worth another try."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meltrepro.errors import SourceError
from meltrepro.store.names import redact

if TYPE_CHECKING:
    import requests

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-[0-9]{1,19}|\*)/(?:([0-9]{1,19})|\*)")
_MEANINGS: Mapping[int, str] = {
    401: "the server asks for a login",
    403: "the server refuses access",
    404: "it does not exist on the server",
    410: "it was removed from the server",
}


class Transient(Exception):
    """Something that may go well at the next try; never leaves this package."""

    def __init__(self, reason: str, retry_after_s: float = 0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@contextmanager
def network_errors(name: str, url: str) -> Iterator[None]:
    """Turn what the HTTP libraries raise into `Transient` or `SourceError`.

    Their own words are dropped, not chained: they repeat the URL with credentials and query.
    """
    import requests
    import urllib3

    try:
        yield
    except requests.exceptions.SSLError:
        raise SourceError(
            f"{name}: no trusted connection to {redact(url)}: its certificate is not accepted",
            hint="behind a proxy that has its own certificate authority, set REQUESTS_CA_BUNDLE to its certificates",
        ) from None
    except requests.exceptions.ProxyError:
        raise Transient("the proxy does not answer or refuses") from None
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
        raise Transient("the server has not answered for too long") from None
    except requests.exceptions.ConnectionError as error:
        raise Transient(_connection_reason(error)) from None
    except (requests.exceptions.ChunkedEncodingError, urllib3.exceptions.HTTPError):
        raise Transient("the connection broke off") from None
    except requests.exceptions.TooManyRedirects:
        raise SourceError(f"{name}: {redact(url)} leads in a circle") from None
    except (requests.exceptions.RequestException, UnicodeError, ValueError):
        raise SourceError(f"{name}: {redact(url)} is not a URL that can be fetched") from None


def _connection_reason(error: requests.exceptions.ConnectionError) -> str:
    import urllib3

    cause = getattr(error.args[0], "reason", error.args[0]) if error.args else None
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return "the name of the server cannot be resolved"
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return "no connection to the server"
    return "the connection broke off"


def check_status(response: requests.Response, name: str, url: str, explain: Mapping[int, str]) -> None:
    """Raise `Transient` or `SourceError` where a response holds no file; `explain` says what a status means here."""
    status = response.status_code
    if status in (200, 206):
        return
    if status in _TRANSIENT or 520 <= status <= 527:
        after = whole_number(response.headers.get("Retry-After", ""))
        raise Transient(f"the server answered with status {status}", after or 0)
    meaning = _MEANINGS.get(status, "the server does not hand it out")
    raise SourceError(
        f"{name}: {meaning} (status {status} of {redact(url)})",
        hint=explain.get(status, "check name, version and address of the source"),
    )


def content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte and size of the whole, as far as a partial response says."""
    match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    start, total = match.groups() if match else (None, None)
    return int(start) if start is not None else None, int(total) if total is not None else None


def content_length(response: requests.Response) -> int | None:
    """Size of the body in bytes, as far as its header says."""
    return whole_number(response.headers.get("Content-Length", ""))


def whole_number(text: str) -> int | None:
    """The number that a header says; `None` for what is none, or larger than any file."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None


def validator(response: requests.Response) -> str | None:
    """What tells this version of the file from others, in a form that If-Range takes."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")
