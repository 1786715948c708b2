"""Which proxy a request goes through, by the variable that names it, and what other programs are told of the network.

Proxies are those of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in capitals or not: what every program knows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from meltrepro.errors import SourceError
from meltrepro.store.names import masked, redact
from meltrepro.untrusted import is_there

_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_CERTIFICATES = ("ssl_cert_file", "ssl_cert_dir", "git_ssl_cainfo")
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name all authorities that count, in place of the system's; the first that is set wins."""
_LOGIN = re.compile(
    r"(tunnel (connection )?failed.*|\b)407\b|SOCKS5 authentication failed|authentication methods were rejected|"
    r"No authentication method|(rejected by the|User was) SOCKS|user was rejected|request rejected or failed|userid",
    re.IGNORECASE,
)
_REFUSED = re.compile(r"0x0([1-8]): ([\w /-]+)")
_BY_RULE = "2"


@dataclass(frozen=True)
class Proxy:
    """The proxy of a request."""

    variable: str
    """Which one names it, as the user wrote it."""
    url: str
    written: bool = True
    """Whether the address is whole; a login without a scheme before it is read in two ways."""

    @property
    def named(self) -> str:
        """How it stands in a message: without its login."""
        return f"the proxy that {self.variable} names ({redact(self.url)})"

    @property
    def mend(self) -> str:
        """What to do where it is not there."""
        return f"see that the proxy runs, or mend or unset {self.variable}; then run the command again"

    def check(self) -> None:
        """Raise `SourceError` for a value that is no proxy's address."""
        try:
            parts = urlsplit(self.url)
            whole = (
                self.written and parts.scheme in _SCHEMES and parts.hostname and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            whole = False
        if not whole:
            raise SourceError(
                f"{self.variable}: {redact(self.url)[:200]!r} is not the address of a proxy",
                hint=f"expected SCHEME://[USER:PASSWORD@]HOST:PORT with one of: {', '.join(_SCHEMES)}",
            )

    def refusal(self, said: str) -> SourceError | None:
        """What a library's or server's words mean that waiting does not mend; `None` for others."""
        if _LOGIN.search(said):
            return SourceError(
                f"{self.named} asks for a login, or does not accept the one that it was given",
                hint=f"{self.variable}=SCHEME://USER:PASSWORD@HOST:PORT, special characters percent-encoded",
            )
        refused = _REFUSED.search(said)
        if refused is not None and refused[1] == _BY_RULE:
            return SourceError(
                f"{self.named} does not allow this connection", hint="ask who runs it, or set NO_PROXY for this server"
            )
        return None

    def reason(self, said: str) -> str:
        """Why a connection through it failed."""
        refused = _REFUSED.search(said)
        return (
            f"{self.named} reaches no server: {refused[2].strip().lower()}"
            if refused
            else f"no connection through {self.named}"
        )


def proxy_for(url: str, environ: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy that a request for a URL takes; `None` where it takes none."""
    from requests.utils import get_environ_proxies, select_proxy

    try:
        value = select_proxy(url, get_environ_proxies(url))
        scheme = urlsplit(url).scheme.lower()
    except ValueError:  # no URL, which others will say
        return None
    if not value:
        return None
    names = [name for wanted in (f"{scheme}_proxy", "all_proxy") for name in environ if name.lower() == wanted]
    name = next((name for name in names if environ[name] == value), names[0] if names else "ALL_PROXY")
    return Proxy(name, value if "://" in value else f"http://{value}", written="://" in value or "@" not in value)


def without_logins(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """A text in which no login of a proxy stands."""
    for name, value in environ.items():
        if name.lower() in _PROXIES[:3] and "@" in value:
            text = masked(text, value if "://" in value else f"http://{value}")
    return text


def ca_bundle(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The authorities that the user named in place of the system's; raises `SourceError` where they are not there."""
    for name in BUNDLES:
        if value := environ.get(name):
            if not is_there(value):
                raise SourceError(
                    f"{name}: {value[:200]} does not exist", hint="name a file of certificates, or unset the variable"
                )
            return Path(value)
    return None


def certificates_variable(environ: Mapping[str, str] = os.environ) -> str:
    """The variable that says whom requests trust: the bundle that stands for all, else what adds to the system's."""
    return next((name for name in BUNDLES if environ.get(name)), "SSL_CERT_FILE")


def for_git(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What git is told: proxies, and the same authorities as all else; raises `SourceError`."""
    told = _any_case(environ, (*_PROXIES, *_CERTIFICATES))
    own = environ.get("SSL_CERT_FILE")
    bundle = ca_bundle(environ) or (Path(own) if own and is_there(own) else None)
    if bundle is not None:
        told.setdefault("GIT_SSL_CAPATH" if bundle.is_dir() else "GIT_SSL_CAINFO", str(bundle))
    return told


def for_apt(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What apt is told: it knows neither ALL_PROXY nor capitals, and of SOCKS the kind alone that resolves names itself."""
    told = {name.lower(): value for name, value in sorted(_any_case(environ, _PROXIES).items()) if value}
    everything = told.pop("all_proxy", None)
    if everything is not None:
        told = {"http_proxy": everything, "https_proxy": everything, **told}
    return {name: re.sub(r"^socks5?://", "socks5h://", value) for name, value in told.items()}


def _any_case(environ: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.lower() in names}
