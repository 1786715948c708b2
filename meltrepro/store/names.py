"""How things are called in messages, keys and file names: without secrets, and the same everywhere."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit, urlunsplit

from meltrepro.errors import SourceError
from meltrepro.spec.tree import shorten


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


def local_path(base: Path, written: str) -> Path:
    """The place on this machine that somebody wrote, counted from `base`; it need not exist.

    Raises `SourceError` where it cannot be looked at: the home of a user that nobody is, a name that no disk takes.
    """
    try:
        path = Path(os.path.abspath(base / Path(written).expanduser()))
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, RuntimeError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise SourceError(f"{shorten(written)!r} cannot be looked at: {reason}", hint="mend the path") from error
    return path


def project_name(name: str) -> str:
    """The name of a Python project in its normal form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def text_digest(text: str) -> str:
    """sha256 of a text, for file names."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
