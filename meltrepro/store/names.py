"""How things are called in messages, keys and file names: without secrets, and the same everywhere."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

from meltrepro.errors import SourceError


def redact(url: str) -> str:
    """A URL without credentials, query and fragment: fit to be printed and stored. The user of ssh is an address."""
    if "://" not in url:  # user@host:path of ssh, where the user is part of the address and no secret
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return re.sub(r"//[^/@]*@", "//", url).partition("?")[0].partition("#")[0]
    user, _, host = parts.netloc.rpartition("@")
    if parts.scheme == "ssh" and user:
        host = f"{user.partition(':')[0]}@{host}"
    return urlunsplit(parts._replace(netloc=host, query="", fragment=""))


def split_url(url: str) -> SplitResult:
    """The parts of a URL; raises `SourceError` for a text that is none."""
    try:
        return urlsplit(url)
    except ValueError as error:
        raise SourceError(f"{redact(url)}: not a URL: {error}") from error


def project_name(name: str) -> str:
    """The name of a Python project in its normal form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def text_digest(text: str) -> str:
    """sha256 of a text, for file names."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
