"""What people copy from a browser where a name or the address of a file is meant, and what they mean by it.

Each function raises `ValueError` with what was expected and what to write instead; it looks at the text alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from meltrepro.words import shorten, visible

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}")
_PROJECT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_HUBS = ("huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com")
_GIT_HOSTS = ("github.com", "www.github.com", "gitlab.com", "codeberg.org", "bitbucket.org")
_INDEXES = ("pypi.org", "pypi.python.org", "test.pypi.org", "www.pypi.org")
_PAGES = frozenset({"blob", "tree", "commit", "commits", "resolve", "raw", "edit", "discussions", "blame", "settings"})
_GIT_PAGES = frozenset({*_PAGES, "releases", "archive", "pull", "pulls", "issues", "wiki", "actions", "src", "tags"})
_A_REPOSITORY = "expected the address of a repository"
_SHA = re.compile(r"[0-9a-f]{40}")
_SCHEME = re.compile(r"^\s*[A-Za-z][A-Za-z0-9+.-]*:/*")


@dataclass(frozen=True)
class _Page:
    """An address, taken apart: where it leads to, and what stands behind the repository in it."""

    host: str
    owner: str
    name: str
    page: str = ""
    """Kind of page, such as `blob`; empty for the repository itself."""
    revision: str = ""
    file: str = ""
    tag: str = ""
    """What other programs call one file of several."""


def repository_id(text: str) -> str:
    """The id of a repository of the Hugging Face hub: OWNER/NAME."""
    odd = ".." in text or "--" in text or text.endswith(".git") or text.partition("/")[0] in _OTHERS
    if _REPOSITORY.fullmatch(text) and not odd:
        return text
    raise ValueError(f"expected OWNER/NAME, got {_what_instead(text)}")


HUB = "hf:"
"""What the short form of a source on the hub begins with."""


def hub_name(text: str) -> dict[str, str]:
    """The keys of `hf:OWNER/NAME`, `hf:OWNER/NAME@COMMIT`, and either with `/FILE` behind it; each is checked as itself."""
    rest = text.removeprefix(HUB)
    if "://" in rest or rest.startswith("/"):  # an address, of which the key says what to write
        return {"huggingface": text}
    owner, _, path = rest.partition("/")
    name, _, file = path.partition("/")
    name, at, revision = name.partition("@")
    if at and not _SHA.fullmatch(revision):
        raise ValueError(
            f"expected a full commit id behind '@', got {shorten(revision)!r}; leave it out for the newest, which the lock then holds"
        )
    return {
        "huggingface": f"{owner}/{name}",
        **({"revision": revision} if at else {}),
        **({"file": file} if file else {}),
    }


def as_source(text: str) -> str | None:
    """How a text that is no source is written as one; `None` where nobody can tell."""
    page = _taken_apart(text, _HUBS)
    file = re.search(r"\.[A-Za-z]{3,}$", text) is not None
    if page is not None and (page.host or not file) and _REPOSITORY.fullmatch(f"{page.owner}/{page.name}"):
        return f"write {HUB}{page.owner}/{page.name}" + (f"/{page.file}" if page.file else "")
    return f"write {{file: {shorten(text)}}}" if file else None


def file_in_repository(path: str) -> str:
    """The path of one file in a repository, as the hub's listing of files has it."""
    page = _taken_apart(path, _HUBS)
    if page is not None and (page.host or _SCHEME.match(path)):
        write = f"; write {page.file}" if page.file else ""
        raise ValueError(f"expected the path of a file in the repository, got an address{write}")
    plain = path.partition("?")[0].strip().strip("/").removeprefix("./")
    found = re.fullmatch(r"(?:resolve|blob|raw|tree)/[^/]+/(.+)", plain)
    plain = found[1] if found else plain
    if "*" in plain and not re.fullmatch(r"[^*]+-\*-of-[0-9]{5}\.[a-z]+", plain):
        raise ValueError(f"expected the path of one file in the repository, got the pattern {shorten(path)!r}")
    if plain != path or "\\" in plain or {"", ".", ".."} & set(plain.split("/")):
        good = plain and "\\" not in plain and not {"", ".", ".."} & set(plain.split("/"))
        write = f"; write {plain}" if good else ""
        raise ValueError(f"expected the path of a file in the repository, got {shorten(path)!r}{write}")
    return path


def project(text: str) -> str:
    """The name of a project of the package index."""
    if _PROJECT.fullmatch(text):
        return text
    plain = re.sub(r"^\s*(pypi:|pip\s+install\s+)", "", text)
    found = re.search(
        r"(?:^|//|\s)(?:www\.|test\.)?pypi\.(?:python\.)?org/(?:project|simple|pypi)/([^/?#]+)(?:/([^/?#]+))?", plain
    )
    got = (
        "an address"
        if "://" in text or found
        else "a requirement"
        if re.search(r"[=<>!~\[]", plain)
        else repr(shorten(text))
    )
    name, version = (found[1], found[2]) if found else _required(plain) if "://" not in plain else ("", None)
    if not _PROJECT.fullmatch(name):
        raise ValueError(f"expected the name of a project on the package index, got {got}")
    more = f" and version: {version}" if version else ""
    raise ValueError(f"expected the name of a project on the package index, got {got}; write {name}{more}")


def exact_version(text: str) -> str:
    """One version of a project."""
    plain = text.strip().lstrip("=").strip()
    moving = not plain or re.search(r"[<>=!~^*,;\s]", plain) or plain.lower() in ("latest", "newest", "stable")
    if moving:
        raise ValueError(
            f"expected an exact version, such as 0.1.2, got {shorten(text)!r}: what may become another one pins nothing"
        )
    if plain != text:
        raise ValueError(f"expected an exact version, got {shorten(text)!r}; write {plain}")
    return text


def git_address(text: str) -> str:
    """The address of a git repository: a URL, `user@host:path`, or a folder."""
    before, found, after = text.partition("/-/")
    if found and "://" in before and after.partition("/")[0] in _GIT_PAGES:
        raise ValueError(f"{_A_REPOSITORY}, got that of a page in it; write what stands before /-/")
    page = _taken_apart(text.removeprefix("git+"), (*_GIT_HOSTS, *_HUBS))
    if page is None or not page.host or "@" in text.partition("/")[0]:
        return text
    home = f"https://{page.host}/{page.owner}/{page.name}"
    if page.page:
        commit = f" and commit: {page.revision}" if _SHA.fullmatch(page.revision) else ""
        raise ValueError(f"{_A_REPOSITORY}, got that of a page in it; write {home}{commit}")
    if not _SCHEME.match(text) or text.startswith("git+"):
        raise ValueError(f"{_A_REPOSITORY}; write {home}")
    return text


def file_address(text: str) -> str:
    """The address of a file, of which some look like that of a page about it."""
    page = _taken_apart(text, (*_GIT_HOSTS, *_HUBS))
    if page is not None and page.host:
        at = f"https://{page.host}/{page.owner}/{page.name}"
        raw = "resolve" if page.host in _HUBS else "-/raw" if page.host == "gitlab.com" else "raw"
        if page.page in ("blob", "blame", "edit", "src") and page.file:
            raise ValueError(
                f"expected the address of a file, got that of a page; write {at}/{raw}/{page.revision}/{page.file}"
            )
        if page.page in ("", "tree", "commit", "commits", "discussions"):
            of = "a repository" if not page.page else "a page"
            raise ValueError(f"expected the address of a file, got that of {of}; write {at}/{raw}/REVISION/FILE")
    if "://" not in text and re.match(r"\s*[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+/", text):
        raise ValueError("expected an https, http or file URL; write https:// before it")
    if text != text.strip():
        raise ValueError("expected an https, http or file URL; leave out the spaces around it")
    return text


_OTHERS = {"datasets": "that of a data set", "spaces": "that of a space"}
"""What else the hub has, by where its addresses begin."""


def _what_instead(text: str) -> str:
    """What was given for a repository of the hub, and what to write."""
    page = _taken_apart(text, _HUBS)
    if page is None:
        if "://" in text:
            return "an address of something else; a file that lies elsewhere is a source of kind url"
        tail = "; the owner is what stands before the name on its page" if re.fullmatch(_PART, text.strip()) else ""
        return f"{shorten(visible(text))!r}{tail}"
    if page.owner in _OTHERS:
        return f"{_OTHERS[page.owner]}; only models are sources of this kind, name a file elsewhere with the key url"
    write = f"{page.owner}/{page.name}"
    if not _REPOSITORY.fullmatch(write) or write == text:
        return f"{shorten(visible(text))!r}"
    more = [f"revision: {page.revision}"] if _SHA.fullmatch(page.revision) else []
    more += [f"file: {page.file}"] if page.file and page.page != "tree" else []
    more += [f"file: that of {page.tag}"] if page.tag else []
    more += ["revision: its full commit id"] if page.revision and not (page.page or more) else []
    what = "an address" if page.host or page.page or _SCHEME.match(text) else repr(shorten(visible(text)))
    return f"{what}; write {' and '.join([write, *more])}"


def _required(text: str) -> tuple[str, str | None]:
    """Name and version of a requirement as pip takes it."""
    found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:==+\s*([^\s;,]+))?", text)
    return (found[1].rstrip("-._"), found[2]) if found else ("", None)


def _taken_apart(text: str, hosts: tuple[str, ...]) -> _Page | None:
    """What an address names, whether it is whole or not; `None` for one of another host, and for what is none."""
    plain = re.split("[?#]", text.strip(), maxsplit=1)[0].replace("\\", "/")
    plain = re.sub(r"^(hf|huggingface):(/*)(?!//)", "", plain, flags=re.IGNORECASE)
    scheme, separator, rest = plain.partition("://")
    if separator and scheme.lower() not in ("http", "https", "git+https", "ssh", "git"):
        return None
    rest = (rest if separator else plain).rpartition("@")[2] if separator else plain
    host, slash, path = rest.lstrip("/").partition("/")
    named = host.lower().partition(":")[0]
    if named in hosts:
        parts = [unquote(each) for each in path.split("/") if each.strip()]
    elif separator or (slash and "." in host and _looks_like_host(named)):
        return None
    else:
        named, parts = "", [each for each in rest.split("/") if each.strip()]
    if parts[:1] == ["models"] and len(parts) > 2:
        parts = parts[1:]
    if parts[:2] == ["api", "models"]:
        parts = parts[2:]
    parts = [each.strip() for each in parts if each != "-"]
    if parts[:1] in (["datasets"], ["spaces"]):
        return _Page(named, parts[0], "/".join(parts[1:]))
    if len(parts) < 2:
        return None
    owner, name = parts[0], parts[1]
    name, _, pinned = name.partition("@")
    name, _, tag = name.partition(":")
    page = parts[2].lower() if len(parts) > 2 else ""
    if page not in _GIT_PAGES:
        return _Page(named, owner, name.removesuffix(".git"), "", pinned, "/".join(parts[2:]), tag)
    revision = parts[3] if len(parts) > 3 else ""
    return _Page(named, owner, name.removesuffix(".git"), page, revision, "/".join(parts[4:]))


def _looks_like_host(text: str) -> bool:
    return (
        re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*\.(com|org|net|co|io|dev|ai|cn|edu|gov|eu|de|uk|fr|jp|me|app)", text)
        is not None
    )
