"""Work with MLflow at a place: the way there is that of MLflow's own client, what goes wrong on it is one line of ours.

Import this module late: mlflow takes seconds.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import urllib3
from sqlalchemy.exc import SQLAlchemyError

from meltrepro.errors import MeltreproError, SourceError, StoreError, TrackingError
from meltrepro.store.names import masked
from meltrepro.store.proxies import Proxy, proxy_for, without_logins
from meltrepro.track import environment, places
from meltrepro.track.places import Place
from meltrepro.untrusted import is_there

with environment.importing():
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

_REACHED_WITHIN_S = 5
_INSECURE, _AUTHORITY = "MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH"
_FILES = (_AUTHORITY, "MLFLOW_TRACKING_CLIENT_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_LATER = "the records are complete on disk; log them once it is mended with: meltrepro sync"


@contextmanager
def plainly(place: Place) -> Iterator[None]:
    """Work with MLflow: with the user's login where the user named the place, and with every error a `TrackingError`."""
    environment.settle()
    server = places.is_server(place.uri)
    proxy = proxy_for(place.uri) if server else None
    if server:
        _check_variables(place, proxy)
    elif (local := places.local_database(place.uri)) is not None:
        environment.rebind(local)
    try:
        with nullcontext() if place.trusted else environment.login_withheld(), warnings.catch_warnings():
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)  # the user's own wish
            yield
    except Exception as error:
        # MLflow checks little of what a server answers: anything may come of it.
        known = isinstance(error, MlflowException | SQLAlchemyError | StoreError | OSError)
        if not known and (isinstance(error, MeltreproError) or not server):
            raise
        text = without_logins(masked(" ".join(str(error).split()), place.uri))
        by_proxy = f", through {proxy.named}," if proxy is not None else ""
        raise TrackingError(
            f"MLflow at {place.shown}{by_proxy} does not take the results: {_reason(text)[:400]}",
            hint=_hint(text, proxy),
        ) from (error if place.uri == place.shown and proxy is None else None)  # what it says may hold a login


def reach(place: Place) -> None:
    """See whether a server answers, before anything waits for it in vain; raises what MLflow's client raises.

    Any answer will do: who may do what is decided later.
    """
    credentials: Callable[[str], Any] = get_default_host_creds
    ask: Callable[..., Any] = http_request
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Could not find any registered plugin")
        ask(
            credentials(place.uri),
            "/health",
            "GET",
            max_retries=0,
            timeout=_REACHED_WITHIN_S,
            raise_on_status=False,
            allow_redirects=False,
        ).close()


def _check_variables(place: Place, proxy: Proxy | None) -> None:
    """Raise `TrackingError` for variables that contradict each other or name what is not there."""
    insecure = os.environ.get(_INSECURE, "").lower()
    if insecure not in ("", "0", "1", "false", "true"):
        raise TrackingError(f"{_INSECURE}: expected true or false, got {insecure[:40]!r}", hint=f"mend it; {_LATER}")
    if insecure in ("1", "true") and os.environ.get(_AUTHORITY):
        raise TrackingError(
            f"{_INSECURE} and {_AUTHORITY} are both set: a certificate is either looked at or not",
            hint=f"unset one of them; {_LATER}",
        )
    for name in _FILES if place.uri.lower().startswith("https:") else ():
        value = os.environ.get(name)
        if value and not is_there(value):
            raise TrackingError(f"{name}: {value[:200]} does not exist", hint=f"mend or unset it; {_LATER}")
    try:
        if proxy is not None:
            proxy.check()
    except SourceError as error:
        raise TrackingError(error.message, hint=error.hint) from None


def _reason(text: str) -> str:
    """What a connection failed of, without the layers of libraries around it."""
    certificate = re.search(r"certificate verify failed: ([^(]+)", text)
    if certificate is not None:
        return f"its certificate is not accepted ({certificate[1].strip()})"
    inner = re.search(
        r"(Failed to (?:establish a new connection|resolve)[^\"]*|Tunnel connection failed: [^'\"]*)", text
    )
    return inner[1].rstrip("'\") ") if inner is not None else text


def _hint(text: str, proxy: Proxy | None) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"name the certificates of its authority, {_AUTHORITY}=FILE (or {_INSECURE}=true to look at none); {_LATER}"
        )
    if proxy is not None and (refused := proxy.refusal(text)) is not None:
        return f"{refused.message}: {refused.hint}"
    return f"{proxy.mend}, or: meltrepro sync" if proxy is not None else _LATER
