"""How things are called in messages, keys and file names: without secrets, and the same everywhere."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from meltrepro.errors import SourceError
from meltrepro.words import shorten

_WEB = ("http", "https", "ssh", "git", "file", "ftp")


def redact(url: str) -> str:
    """A URL without credentials, query and fragment: fit to be printed and stored. The user of ssh is an address."""
    scheme, separator, rest = url.partition("://")
    if not separator:  # user@host:path of ssh, where the user is part of the address and no secret
        return url
    scheme = scheme.lower()
    if scheme not in _WEB:  # passwords of databases may hold anything but "@"
        rest = re.sub(r"^[^:/@]*:[^@]*@", "", rest, count=1)
    authority, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    user, _, host = authority.rpartition("@")
    if scheme == "ssh" and user:
        host = f"{user.partition(':')[0]}@{host}"
    return f"{scheme}://{host}{slash}{path}"


def masked(text: str, url: str) -> str:
    """A text in which neither a URL nor a secret part of it stands; libraries repeat them whole or in pieces."""
    text = text.replace(url, redact(url))
    before, _, query = url.partition("?")
    login = before.partition("://")[2].rpartition("@")[0]
    pieces = {login, login.partition(":")[2], query, *(pair.partition("=")[2] for pair in re.split("[&;#]", query))}
    for piece in sorted({*pieces, *map(unquote, pieces)}, key=len, reverse=True):
        if len(piece) > 3:  # what is shorter is no secret, but part of many words
            text = text.replace(piece, "***")
    return text


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
