"""What servers and networks say, in our own words: which answers are final, which are worth another try."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from meltrepro.errors import SourceError
from meltrepro.store.names import redact, split_url
from meltrepro.store.proxies import Proxy, ca_bundle, certificates_variable, proxy_for
from meltrepro.untrusted import whole_number

if TYPE_CHECKING:
    import requests

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_BROKEN_OFF = "the connection broke off"
_AGAIN = "run the command again, it goes on where this one stopped; where a proxy is needed, set HTTPS_PROXY"
_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-[0-9]{1,19}|\*)/(?:([0-9]{1,19})|\*)")
_MEANINGS: Mapping[int, str] = {
    401: "the server asks for a login",
    403: "the server refuses access",
    404: "it does not exist on the server",
    407: "a proxy asks for a login",
    410: "it was removed from the server",
}


class Transient(Exception):
    """Something that may go well at the next try; never leaves this package."""

    def __init__(self, reason: str, retry_after_s: float = 0, hint: str | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.hint = hint or _AGAIN


@contextmanager
def network_errors(name: str, url: str) -> Iterator[None]:
    """Turn what the HTTP libraries raise into `Transient` or `SourceError`.

    Their own words are dropped, not chained: they repeat the URL with credentials and query.
    """
    import requests
    import urllib3

    proxy = proxy_for(url)
    if proxy is not None:
        proxy.check()
    ca_bundle()  # one that is not there would be told of as no error of a request
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise SourceError(
            f"{name}: no trusted connection to {redact(url)}: {_of_certificate(str(error))}",
            hint=f"where a company or proxy has an authority of its own, name its certificates: {certificates_variable()}=FILE",
        ) from None
    except (
        requests.exceptions.ProxyError,
        requests.exceptions.ConnectTimeout,
        requests.exceptions.ConnectionError,
    ) as error:
        raise _unconnected(name, proxy, error) from None
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
        raise Transient("the server has not answered for too long") from None
    except (requests.exceptions.ChunkedEncodingError, urllib3.exceptions.HTTPError):
        raise Transient(_BROKEN_OFF) from None
    except requests.exceptions.TooManyRedirects:
        raise SourceError(f"{name}: {redact(url)} leads in a circle") from None
    except (requests.exceptions.RequestException, UnicodeError, ValueError):
        raise SourceError(f"{name}: {redact(url)} is not a URL that can be fetched, or leads to one") from None


def _unconnected(name: str, proxy: Proxy | None, error: requests.exceptions.RequestException) -> Exception:
    """What a connection that did not come about is called: the proxy's fault where there is one."""
    import requests

    if proxy is None:
        late = isinstance(error, requests.exceptions.Timeout)
        return Transient("the server has not answered for too long" if late else _connection_reason(error))
    said = str(error)
    final = proxy.refusal(said)
    if final is not None:
        return SourceError(f"{name}: {final.message}", hint=final.hint)
    if not isinstance(error, requests.exceptions.ProxyError) and _connection_reason(error) == _BROKEN_OFF:
        return Transient(f"{_BROKEN_OFF}, through {proxy.named}")
    return Transient(proxy.reason(said), hint=proxy.mend)


def _of_certificate(said: str) -> str:
    """What OpenSSL says, in words."""
    verified = re.search(r"certificate verify failed: ([^(]+)", said)
    if verified is not None:
        return f"its certificate is not accepted ({verified[1].strip()})"
    other = re.search(r"\[(?:SSL|X509)[^\]]*\] ([^(]+)", said)
    return f"TLS fails ({other[1].strip()})" if other is not None else "its certificate is not accepted"


def _connection_reason(error: requests.exceptions.RequestException) -> str:
    import urllib3

    cause = getattr(error.args[0], "reason", error.args[0]) if error.args else None
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return "the name of the server cannot be resolved"
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return "no connection to the server"
    return _BROKEN_OFF


def login_hint(url: str) -> str:
    """How a server that only a manifest names is given the user's login."""
    host = split_url(url).hostname or "HOST"
    return (
        f"check the address; if this server shall have your login: put it into ~/.netrc and set MELTREPRO_LOGINS={host}"
    )


def check_status(response: requests.Response, name: str, url: str, explain: Mapping[int, str]) -> None:
    """Raise `Transient` or `SourceError` where a response holds no file; `explain` says what a status means here."""
    status = response.status_code
    if status in (200, 206):
        return
    if status in _TRANSIENT or 520 <= status <= 527:
        after = _retry_after_s(response)
        wish = f", and wants to be asked again in {after:.0f} s" if after else ""
        raise Transient(f"the server answered with status {status}{wish}", after, explain.get(status))
    if status == 407 and (proxy := proxy_for(response.url)) is not None:
        asked = proxy.refusal("407")
        assert asked is not None
        raise SourceError(f"{name}: {asked.message}", hint=asked.hint)
    meaning = _MEANINGS.get(status, "the server does not hand it out")
    raise SourceError(
        f"{name}: {meaning} (status {status} of {redact(url)})",
        hint=explain.get(status, "check name, version and address of the source"),
    )


def _retry_after_s(response: requests.Response) -> float:
    """Seconds that a server wants to be left alone: a number, or a date."""
    said = response.headers.get("Retry-After", "").strip()
    if (number := whole_number(said)) is not None:
        return number
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte and size of the whole, as far as a partial response says."""
    match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    start, total = match.groups() if match else (None, None)
    return int(start) if start is not None else None, int(total) if total is not None else None


def content_length(response: requests.Response) -> int | None:
    """Size of the body in bytes, as far as its header says."""
    return whole_number(response.headers.get("Content-Length", ""))


def validator(response: requests.Response) -> str | None:
    """What tells this version of the file from others, in a form that If-Range takes."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")
