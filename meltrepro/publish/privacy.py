"""What must not become public by accident: names, paths, addresses, serial numbers, secrets; looked for before anybody sees it."""

from __future__ import annotations

import getpass
import os
import pwd
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meltrepro.errors import EntryError, PrivateText
from meltrepro.manifest.yaml.tree import FieldPath
from meltrepro.measure.records import CampaignRecord
from meltrepro.publish.entry import PublicEntry
from meltrepro.untrusted import as_model, shown
from meltrepro.words import shorten

WITHHELD = "withheld"
"""Stands for a text that no entry can be without."""
_COMMIT = "cells.*.commit"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_FOLDERS = (
    "home|users|root|tmp|var|mnt|data|opt|srv|etc|usr|media|private|sdcard|storage|work|workspace|volumes|run|dev|proc|sys|system|"
    "applications|library|nix|scratch|nfs|net|build|builds"
)
PATTERNS: Mapping[str, re.Pattern[str]] = {
    "a path": re.compile(
        rf"(?i)(?:^|[^\w.:/-])/(?:(?:{_FOLDERS})(?:/|$)|[^\s/]+/[^\s/]+/)|(?:^|\W)~/|(?:^|\W)[a-z]:[\\/]|\\\\\w|file:/|\.\./"
    ),
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.\w"),
    "an IP address": re.compile(
        rf"(?<![\w.-]){_OCTET}(?:\.{_OCTET}){{3}}(?![\w.-])|(?i:(?<![\w:])(?:[0-9a-f]{{1,4}}:){{3,7}}[0-9a-f]{{1,4}}(?![\w:])|"
        r"(?<![\w:])[0-9a-f]{1,4}(?::[0-9a-f]{1,4})*::(?:[0-9a-f:]*)(?![\w:])|(?<![\w:])::[0-9a-f][0-9a-f:]*(?![\w:]))"
    ),
    "a hardware address": re.compile(r"(?i)(?<![0-9a-f:-])(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}(?![0-9a-f:-])"),
    "an address with a login": re.compile(r"\w+://[^\s/@]+@"),
    "a device's number": re.compile(r"(?i)(?<![0-9a-f])(?:[0-9a-f]{8}-[0-9a-f]{16}|[0-9a-f]{40}|\d{15})(?![0-9a-f])"),
    "a UUID": re.compile(r"(?i)(?<![0-9a-f])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f])"),
    "a secret": re.compile(
        r"\b(?:hf_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-|AKIA|ASIA|AIza|npm_|pypi-|dckr_pat_)[\w-]{10,}"
        r"|\beyJ[\w-]{8,}\.|PRIVATE KEY|(?i:\b(?:password|passwd|token|secret|api[_-]?key)\s*[=:])"
    ),
}
"""What a text may hold that is somebody's, by what it is called."""
_NOBODY = frozenset(
    (
        *("root", "user", "users", "admin", "administrator", "ubuntu", "debian", "fedora", "pi", "test", "guest"),
        *("nobody", "runner", "ci", "build", "builder", "docker", "vagrant", "ec2-user", "azureuser", "localhost"),
        *("localdomain", "local", "host", "android", "phone", "jetson", "linux", "shell", "mobile", "default", "none"),
        *("nvidia", "rock", "radxa", "khadas", "odroid", "orangepi", "raspberrypi"),
    )
)
"""Names of users and machines that are nobody's in particular."""
_LEAST = 3
_PLACES = ("serial", "udid", "host", "user", "address", "server", "name", "jump", "mac", "identity", "key")
"""Keys of a target that say which device it is, or who logs in there."""


@dataclass(frozen=True)
class Hit:
    """Something private in an entry."""

    field: str
    """Its path, with `*` for places in lists."""
    what: str
    text: str
    """What stands there, shortened."""

    def __str__(self) -> str:
        return f"{self.field}: {self.what}: {self.text!r}"


def known_names(campaigns: Sequence[CampaignRecord]) -> Mapping[str, str]:
    """Texts that say who measured and on which machine, and what each is: of this user, this machine, and the records' devices."""
    found: dict[str, str] = {}

    def add(text: object, what: str) -> None:
        word = str(text or "").strip()
        if len(word) >= _LEAST and word.lower() not in _NOBODY:
            found.setdefault(word, what)

    with suppress(OSError, KeyError, ImportError):
        add(getpass.getuser(), "the name of this user")
    with suppress(KeyError):
        account = pwd.getpwuid(os.getuid())
        add(account.pw_name, "the name of this user")
        for part in (account.pw_gecos.split(",")[0], *account.pw_gecos.split(",")[0].split()):
            add(part, "the name of this user")
        add(account.pw_dir.rstrip("/"), "this user's home folder")
    for variable in ("USER", "LOGNAME", "SUDO_USER"):
        add(os.environ.get(variable), "the name of this user")
    for variable in ("EMAIL", "GIT_AUTHOR_EMAIL", "GIT_AUTHOR_NAME"):
        add(os.environ.get(variable), "a name of this user")
    with suppress(RuntimeError):
        add(str(Path.home()).rstrip("/"), "this user's home folder")
    for name in (socket.gethostname(), socket.gethostname().partition(".")[0]):
        add(name, "the name of this machine")
    for campaign in campaigns:
        for target, entry in campaign.manifest.targets.items():
            place = {**entry.place, "server": entry.server}
            for key, value in place.items():
                if key in _PLACES and isinstance(value, str):
                    add(value, f"{key} of the target {target}")
                    for part in re.split(r"[@:/]", value):
                        add(part, f"{key} of the target {target}")
        for cell in campaign.document.cells:
            add(cell.params.get("device.id"), "the id of a device")
        add(campaign.document.tracking.uri, "the tracking server")
    return found


def leaves(value: Any, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """Every value of a document by its path, and every key of a mapping under its own path."""
    for at, inner in _parts(value, path):
        if isinstance(value, dict):
            yield at, at[-1]
        if not isinstance(inner, dict | list):
            yield at, inner
        yield from leaves(inner, at)


def _parts(value: Any, path: FieldPath) -> Iterator[tuple[FieldPath, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return (((*path, key), inner) for key, inner in items)


def hits(document: Mapping[str, Any], known: Mapping[str, str], keep: Sequence[str] = ()) -> list[Hit]:
    """What of a document is private, each field once; nothing of the fields that `keep` names."""
    found: dict[Hit, None] = {}
    for path, value in leaves(document):
        if not isinstance(value, str) or any(_names(one, path) for one in keep):
            continue
        for what in _private(value, known):
            if not (what == "a device's number" and _general(path) == _COMMIT):
                found[Hit(_general(path), what, shorten(value, 80))] = None
    return list(found)


def _private(value: str, known: Mapping[str, str]) -> Iterator[str]:
    for name, what in known.items():
        if re.search(rf"(?i)(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", value):
            yield what
    for what, pattern in PATTERNS.items():
        if pattern.search(value):
            yield what


def require_public(entry: PublicEntry, known: Mapping[str, str], keep: Sequence[str] = ()) -> None:
    """Raise `PrivateText` that names every field with something private in it."""
    found = hits(entry.model_dump(mode="json", exclude_none=True), known, keep)
    if found:
        fields = list(dict.fromkeys(hit.field for hit in found))
        flags = " ".join(f"--leave-out '{shown(Path(field))}'" for field in fields)
        raise PrivateText(
            "\n".join(["this would become public:", *(f"  {hit}" for hit in found)]),
            hint=f"leave it out with {flags}; what everybody may know is let through with --keep in place of --leave-out",
        )


def without(entry: PublicEntry, fields: Sequence[str]) -> PublicEntry:
    """An entry without some fields, by path with `*` for any place in a list; what no entry can be without is `withheld`.

    Raises `EntryError` for a field that is not there, or that is a number or digest which no entry can be without.
    """
    for pattern in fields:
        document = entry.model_dump(mode="json", exclude_none=True)
        there = [path for path in _paths(document) if _names(pattern, path)]
        if not there:
            raise EntryError(
                f"--leave-out {pattern}: there is no such field",
                hint="the preview shows them: cells.*.effective.effective.version",
            )
        try:
            entry = as_model(PublicEntry, _changed(document, there, None))
        except ValueError:
            document = entry.model_dump(mode="json", exclude_none=True)
            try:
                entry = as_model(PublicEntry, _changed(document, there, WITHHELD))
            except ValueError as error:
                raise EntryError(f"--leave-out {pattern}: no entry can be without it") from error
    return entry


def _paths(value: Any, path: FieldPath = ()) -> Iterator[FieldPath]:
    for at, inner in _parts(value, path):
        yield at
        yield from _paths(inner, at)


def _changed(document: Any, paths: Sequence[FieldPath], instead: str | None) -> Any:
    for path in reversed(paths):  # so that places in lists stay as they are
        place = document
        for key in path[:-1]:
            place = place[key]
        if instead is None:
            del place[path[-1]]
        else:
            place[path[-1]] = instead
    return document


def _general(path: FieldPath) -> str:
    return ".".join("*" if isinstance(key, int) else key for key in path)


def _names(pattern: str, path: FieldPath) -> bool:
    return pattern in (_general(path), ".".join(map(str, path)))
