"""Sources of kind `pypi`: distribution files of a Python package index, or single members of them.

The index is the one that pip and uv are configured with; locks and pins hold file names and digests only.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlunsplit

from meltrepro.atomic import require_free
from meltrepro.errors import DigestMismatch, SourceError
from meltrepro.manifest.sources import PypiSource
from meltrepro.store.archive import open_member
from meltrepro.store.cas import Store
from meltrepro.store.download import FileRequest
from meltrepro.store.http import check_status, network_errors
from meltrepro.store.names import redact, split_url
from meltrepro.store.source import Context, Pin, key_of

if TYPE_CHECKING:
    from packaging.version import Version
    from pypi_simple import DistributionPackage

_CHUNK = 1 << 20
_LONG = 100
_BROKEN = (LookupError, TypeError, AttributeError, RecursionError)
"""What the reader of an index raises where the answer has another shape."""
_INDEX_HINT = "the index is taken from PIP_INDEX_URL, UV_DEFAULT_INDEX, UV_INDEX_URL or pip's configuration"


class Pypi:
    def resolve(self, source: PypiSource, context: Context) -> Pin:
        """Look the file up in the index; transfer it where a member's digest is asked for."""
        key, store = key_of(source), context.store
        package = _find(source, context)
        listed, size = _listed(package), _size(package)
        if source.member is None:
            _expect(key, source.digest, listed)
            if listed is not None and size is not None:
                return Pin(source=key, digest=listed, size=size, filename=package.filename)
            stored = _download(key, package, source.digest or listed, context)
            return Pin(source=key, digest=stored, size=store.size(stored), filename=package.filename)
        if source.digest and store.has(source.digest) and listed:
            return Pin(  # the member is here; all that was left to learn stands in the index
                source=key,
                digest=source.digest,
                size=store.size(source.digest),
                filename=package.filename,
                archive_digest=listed,
                archive_size=size,
            )
        archive = listed if listed and store.has(listed) else _download(key, package, listed, context)
        return extract(source, store, archive, package.filename)

    def fetch(self, source: PypiSource, pin: Pin, context: Context) -> None:
        """Transfer the pinned file, or take the member out of the file that is here already."""
        archive = pin.archive_digest if source.member else pin.digest
        if archive is None or not context.store.has(archive):
            package = _find(source.model_copy(update={"filename": source.filename or pin.filename}), context)
            _expect(pin.source, archive, _listed(package))
            archive = _download(pin.source, package, archive or _listed(package), context)
        if source.member:
            extract(source.model_copy(update={"digest": pin.digest}), context.store, archive, pin.filename)

    def transfer_size(self, source: PypiSource, context: Context) -> int | None:
        """Size of the distribution file, as the index or the server says."""
        package = _find(source, context, quick=True)
        if (size := _size(package)) is not None:
            return size
        return context.downloader.length(_request(key_of(source), package, None))


def extract(source: PypiSource, store: Store, archive: str, filename: str | None) -> Pin:
    """Take the member that `source` names out of a stored file; raises `SourceError` and `DigestMismatch`."""
    assert source.member is not None, "only a member can be taken out"
    key = key_of(source)
    path = store.verify(archive)
    with open_member(path, source.member, f"{key}: {filename or path.name}") as (member, content):
        require_free(store.root, member.size)
        with store.writer(expected=source.digest, needed=member.size, subject=key) as writer:
            while block := content.read(_CHUNK):
                writer.write(block)
    return Pin(
        source=key,
        digest=writer.digest,
        size=writer.size,
        filename=filename,
        archive_digest=archive,
        archive_size=path.stat().st_size,
    )


# -- the index ----------------------------------------------------------------------------------------------------


def index_url(environ: Mapping[str, str] = os.environ) -> str:
    """The index that this machine is configured to use, else the client library's own default."""
    for variable in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if value := environ.get(variable, "").strip():
            return re.sub(r"^[\w.-]+=(?=\w+://)", "", value)  # uv lets an index have a name
    if configured := _pip_index_url():
        return configured
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    return PYPI_SIMPLE_ENDPOINT


@functools.cache
def _pip_index_url() -> str | None:
    """What pip's configuration files say; `None` where there is no pip, or it says nothing."""
    for command in ([sys.executable, "-m", "pip"], ["pip"]):
        if shutil.which(command[0]) is None:
            continue
        # `config list`, for `config get` does not look into the file that PIP_CONFIG_FILE names.
        listed = subprocess.run(
            [*command, "config", "list"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if listed.returncode == 0:
            found = re.search(r"^global\.index-url='(.+)'$", listed.stdout, re.MULTILINE)
            return found[1] if found else None
    return None


def _credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """The user's index without its credentials, and these; those of ~/.netrc where none stand in its address."""
    from meltrepro.store.sessions import own_login

    parts = split_url(url)
    clean = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if parts.username is None:
        return clean, own_login(clean)
    return clean, (unquote(parts.username), unquote(parts.password or ""))


def _find(source: PypiSource, context: Context, *, quick: bool = False) -> DistributionPackage:
    """The distribution file that a source means; raises `SourceError` with what there is instead."""
    from pypi_simple import NoSuchProjectError, PyPISimple, UnsupportedRepoVersionError

    from meltrepro.store.sessions import new_session

    key = key_of(source)
    context.downloader.require_network(key)
    endpoint, auth = _credentials(index_url())
    retry = context.downloader.retry
    timeout = (3.0, 5.0) if quick else (retry.connect_s, retry.silence_s)

    def packages() -> Sequence[DistributionPackage]:
        import requests

        with network_errors(key, endpoint), PyPISimple(endpoint, auth=auth, session=new_session()) as client:
            try:
                return client.get_project_page(source.pypi, timeout=timeout).packages
            except NoSuchProjectError:
                raise SourceError(
                    f"{key}: the package index {redact(endpoint)} has no project {source.pypi!r}",
                    hint=f"check its spelling; {_INDEX_HINT}",
                ) from None
            except requests.HTTPError as error:
                asked = "write the index's login into its address, or into ~/.netrc"
                check_status(error.response, key, endpoint, {401: asked, 403: asked})
                raise
            except (UnsupportedRepoVersionError, ValueError, *_BROKEN) as error:  # another content type, broken JSON
                if isinstance(error, requests.RequestException) and not isinstance(error, requests.JSONDecodeError):
                    raise
                raise SourceError(
                    f"{key}: {redact(endpoint)} does not answer like a package index", hint=_INDEX_HINT
                ) from error

    found = packages() if quick else context.downloader.insist(key, endpoint, packages)
    return choose(source, found)


def _listed(package: DistributionPackage) -> str | None:
    """The sha256 that the index lists, where it is one."""
    found = package.digests.get("sha256")
    return found if isinstance(found, str) and re.fullmatch(r"[0-9a-f]{64}", found) else None


def _size(package: DistributionPackage) -> int | None:
    """The size that the index lists in bytes, where it can be one."""
    found = package.size
    return found if type(found) is int and 0 <= found < 2**62 else None


def _request(name: str, package: DistributionPackage, digest: str | None) -> FileRequest:
    endpoint, auth = _credentials(index_url())
    same_server = split_url(endpoint)[:2] == split_url(package.url)[:2]
    if not same_server and split_url(package.url).scheme not in (
        "https",
        "http",
    ):  # a server cannot point to a file here
        raise SourceError(f"{name}: the index names an address that is none: {redact(package.url)}", hint=_INDEX_HINT)
    return FileRequest(package.url, name, digest, auth if same_server else None)


def _download(name: str, package: DistributionPackage, digest: str | None, context: Context) -> str:
    return context.downloader.download(_request(name, package, digest))


def _expect(key: str, expected: str | None, listed: str | None) -> None:
    if None not in (expected, listed) and expected != listed:
        raise DigestMismatch(
            f"{key}: pinned to sha256 {expected}, but the index lists {listed}",
            hint="the file was replaced, or the pin is of another file of this version: name the one you mean (filename)",
        )


# -- which file ---------------------------------------------------------------------------------------------------


def choose(source: PypiSource, packages: Sequence[DistributionPackage]) -> DistributionPackage:
    """The one file that a source means among all of its project; raises `SourceError` with what there is instead."""
    from packaging.version import Version

    key = key_of(source)
    try:
        wanted = Version(source.version)
    except ValueError as error:  # also of a number of thousands of digits
        raise SourceError(f"{key}: {source.version[:_LONG]!r} is not a version") from error
    released = {package.filename: package for package in packages if _version(package) == wanted}
    if not released:
        versions = sorted({v for v in map(_version, packages) if v is not None}, reverse=True)
        near = difflib.get_close_matches(source.version[:_LONG], map(str, versions), n=3) or [
            str(v) for v in versions[:3]
        ]
        raise SourceError(
            f"{key}: the index has no version {source.version}",
            hint=f"it has {', '.join(near)}" if near else "it has no version at all",
        )
    if source.filename is not None:
        if source.filename not in released:
            raise SourceError(f"{key}: the index has no file of that name", hint=f"it has {_listing(released)}")
        return released[source.filename]
    of_kind = [package for package in released.values() if package.package_type == source.kind]
    if source.digest is not None and source.member is None:
        for package in of_kind:
            if _listed(package) == source.digest:
                return package
    ranks = {
        package.filename: rank for package in of_kind if (rank := _rank(source.kind)(package.filename)) is not None
    }
    if not ranks:
        raise SourceError(
            f"{key}: the index has no {source.kind} that this machine can use",
            hint=f"name the file you mean (filename): {_listing(released)}",
        )
    return released[min(ranks, key=lambda name: (ranks[name], name))]


def _version(package: DistributionPackage) -> Version | None:
    from packaging.version import Version

    try:
        return Version(package.version) if package.version is not None else None
    except ValueError:
        return None


def _rank(kind: str) -> Callable[[str], int | None]:
    """How well a file fits, the lower the better; `None` for one that does not."""
    if kind == "sdist":
        return lambda filename: 0 if filename.endswith(".tar.gz") else 1
    return _wheel_rank


def _wheel_rank(filename: str) -> int | None:
    """Wheels for every platform come first, so that all machines choose alike; then what pip would prefer."""
    from packaging.utils import parse_wheel_filename

    try:
        tags = parse_wheel_filename(filename)[3]
    except ValueError:
        return None
    if any(tag.platform == "any" and tag.abi == "none" for tag in tags):
        return -1
    return min((rank for tag in tags if (rank := _supported().get(str(tag))) is not None), default=None)


@functools.cache
def _supported() -> Mapping[str, int]:
    from packaging.tags import sys_tags

    return {str(tag): rank for rank, tag in enumerate(sys_tags())}


def _listing(names: Mapping[str, object]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")
