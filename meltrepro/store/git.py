"""Sources of kind `git`: the tree of a commit as a deterministic tar, through the git program.

The tar depends on the commit alone: neither on attributes that the tree sets for its own export, nor on the
configuration of the machine, nor on the version of git. Everything in it lies below `source/`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from meltrepro.errors import DownloadError, SourceError, StoreError, UsageError
from meltrepro.manifest.lock import LockedName
from meltrepro.manifest.sources import OVER_SSH, WORKTREE, GitSource
from meltrepro.steps import step
from meltrepro.store import proxies
from meltrepro.store.archive import EPOCH
from meltrepro.store.cas import Store
from meltrepro.store.http import Transient, login_hint
from meltrepro.store.names import local_path, masked, redact, split_url
from meltrepro.store.source import Context, Pin, Provider, key_of

PREFIX = "source"
_PROTOCOLS = "https:ssh:file"
_SSH = "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o ClearAllForwardings=yes -o ForwardAgent=no"
"""A manifest may be a stranger's: no server is logged in to whose key the user has not accepted."""
_KEPT = ("PATH", "SSH_AUTH_SOCK", "TMPDIR")
_TIMEOUT_S = 7200.0
_AS_COMMITTED = "* -text -eol -ident -filter -working-tree-encoding -export-subst -export-ignore\n"
_NOTHING: Mapping[str, str] = MappingProxyType({})
_NOBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "nobody"), ("EMAIL", "nobody"), ("DATE", "946684800 +0000"))
}
"""Whoever commits: the same changes to the same commit have one id."""
_BROKEN = re.compile(
    r"could not resolve host|timed out|connection (refused|reset)|early eof|unexpected disconnect|"
    r"rpc failed|remote end hung up|operation too slow|failed to connect|could not connect|can't complete SOCKS|HTTP (429|50\d)",
    re.IGNORECASE,
)
_ASKED = re.compile(r"could not read (Username|Password)|Authentication failed|returned error: 40[13]", re.IGNORECASE)


class Git(Provider[GitSource]):
    def resolve(self, source: GitSource, context: Context) -> Pin:
        """Transfer the commit: its tar's digest cannot be known otherwise."""
        return fetch_commit(source, source.git, context)

    def fetch(self, source: GitSource, pin: Pin, context: Context) -> None:
        fetch_commit(source.model_copy(update={"digest": pin.digest}), source.git, context)


def fetch_commit(source: GitSource, repository: str, context: Context) -> Pin:
    """Fetch one commit of a repository (the source's own, or a mirror of it) and store its tree.

    Raises `SourceError`, `DownloadError`, `OfflineError` and `StoreError`; `DigestMismatch` where the tree is another
    than the pinned one.
    """
    key = key_of(source)
    url = _checked_url(key, repository, context.base)
    if not url.startswith(("file://", "/")):
        context.downloader.require_network(key)
    git = _program(key)
    with step(context.sink, "fetch", key), context.store.scratch() as scratch:
        folder = scratch / "repository"
        _git(git, scratch, "init", "--quiet", "--bare", "--template=", str(folder))
        (folder / "info").mkdir(exist_ok=True)
        (folder / "info" / "attributes").write_text(_AS_COMMITTED, encoding="ascii")
        named = "://" in url and split_url(url).hostname in context.downloader.logins
        context.downloader.insist(key, url, lambda: _fetch(git, folder, url, source, key, with_login=named))
        found = _git(git, folder, "rev-parse", "--verify", "FETCH_HEAD^{commit}").stdout.strip()
        if found != source.commit:
            raise SourceError(f"{key}: the server sent commit {found} instead", hint="check the repository's address")
        return _archived(git, folder, source, context)


def _archived(git: str, folder: Path, source: GitSource, context: Context) -> Pin:
    """Store the tree of a commit that a bare repository has."""
    key = key_of(source)
    with context.store.scratch() as scratch:
        plain = scratch / "plain.tar"
        result = _git(git, folder, "archive", "--format=tar", f"--output={plain}", source.commit)
        if result.returncode != 0:
            raise StoreError(f"{key}: git could not write {plain}: {result.stderr.strip()[-500:]}")
        if not _git(git, folder, "ls-tree", "--name-only", source.commit).stdout:
            raise SourceError(f"{key}: the commit holds no file", hint="name another")
        digest = _normalize(plain, context.store, source.digest, key)
    return Pin(source=key, digest=digest, size=context.store.size(digest), filename=f"{source.commit}.tar")


def newest(source: GitSource, context: Context) -> tuple[LockedName, Pin | None]:
    """What a commit's name stands for now; of a checkout's changes the pin as well, for nobody else can hand them out.

    Raises `SourceError` where there is no such name, and what fetching raises.
    """
    key = key_of(source)
    url, git = _checked_url(key, source.git, context.base), _program(key)
    folder = Path(url)
    if source.commit == WORKTREE:
        if not folder.is_dir():
            raise SourceError(f"{key}: only a folder on this machine is a checkout", hint="name a branch or a commit")
        return _checkout(git, source, folder, context)
    if folder.is_dir():
        return LockedName(revision=_revision(git, folder, key, source.commit)), None
    if not url.startswith("file://"):
        context.downloader.require_network(key)
    names = (
        source.commit,
        f"refs/heads/{source.commit}",
        f"refs/tags/{source.commit}",
        f"refs/tags/{source.commit}^{{}}",
    )
    named = split_url(url).hostname in context.downloader.logins if "://" in url else False
    with context.store.scratch() as scratch:
        said = _git(git, scratch, "ls-remote", "--", url, *names, with_login=named)
        if said.returncode != 0:
            _refused(said.stderr, url, key, None)
    found = {name: commit for commit, _, name in (line.partition("\t") for line in said.stdout.splitlines())}
    for name in reversed(names):  # what an annotated tag points to comes before the tag
        if name in found:
            return LockedName(revision=found[name]), None
    raise SourceError(
        f"{key}: the repository has no branch or tag {source.commit}",
        hint="a server knows branches and tags alone: write them, or the whole id of a commit",
    )


def commits_between(source: GitSource, good: str, bad: str, base: Path) -> list[str]:
    """Commits of a repository on this machine from one that stands before another to that, along its first parents.

    Raises `SourceError` where there is no such name, `UsageError` where the one does not lead to the other.
    """
    key = key_of(source)
    folder, git = Path(_checked_url(key, source.git, base)), _program(key)
    first, last = (_revision(git, folder, key, name) for name in (good, bad))
    found = _git(git, folder, "rev-list", "--first-parent", "--reverse", f"{first}..{last}").stdout.split()
    if not found or _revision(git, folder, key, f"{found[0]}~1") != first:
        raise UsageError(
            f"{good} is no commit below {bad} along its first parents",
            hint=f"look with: git -C {folder} log --oneline --first-parent {bad}",
        )
    return [first, *found]


def _program(key: str) -> str:
    git = shutil.which("git")
    if git is None:
        raise SourceError(f"{key}: git is needed, and is not installed", hint="apt-get install git")
    return git


def _revision(git: str, folder: Path, key: str, name: str) -> str:
    found = _git(git, folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if found.returncode != 0:
        if "dubious ownership" in found.stderr:
            _refused(found.stderr, str(folder), key, None)
        raise SourceError(f"{key}: no commit is called {name}", hint=f"look with: git -C {folder} log --oneline {name}")
    return found.stdout.strip()


def _checkout(git: str, source: GitSource, folder: Path, context: Context) -> tuple[LockedName, Pin | None]:
    """A checkout as it lies there, without what git ignores, as the commit that git would make of it.

    That is made in a repository of its own, which borrows the objects: nothing of the user's is written, and no setting
    or filter of the checkout has a say.
    """
    key = key_of(source)
    below = _revision(git, folder, key, "HEAD")
    top, objects, excluded = (
        (folder / line).resolve()
        for line in _git(
            git, folder, "rev-parse", "--show-toplevel", "--git-path", "objects", "--git-path", "info/exclude"
        ).stdout.splitlines()
    )
    with step(context.sink, "fetch", key), context.store.scratch() as scratch:
        own = scratch / "repository"
        _git(git, scratch, "init", "--quiet", "--bare", "--template=", str(own))
        (own / "info").mkdir()
        (own / "info" / "attributes").write_text(_AS_COMMITTED, encoding="ascii")
        if excluded.is_file():
            shutil.copyfile(excluded, own / "info" / "exclude")
        (own / "objects" / "info" / "alternates").write_text(f"{objects}\n", encoding="utf-8")

        def ask(*arguments: str) -> str:
            done = _git(git, top, f"--git-dir={own}", f"--work-tree={top}", *arguments, extra=_NOBODY)
            if done.returncode != 0:
                raise SourceError(
                    f"{key}: git {arguments[0]}: {done.stderr.strip()[-300:]}", hint=f"look with: git -C {top} status"
                )
            return done.stdout.strip()

        ask("read-tree", below)
        ask("add", "--all")
        tree = ask("write-tree")
        if tree == ask("rev-parse", f"{below}^{{tree}}"):
            return LockedName(revision=below), None
        commit = ask("commit-tree", tree, "-p", below, "-m", "uncommitted changes")
        pin = _archived(git, own, source.model_copy(update={"commit": commit, "digest": None}), context)
    return LockedName(revision=commit, below=below), pin


def _checked_url(key: str, repository: str, base: Path) -> str:
    """The address for git's command line; raises `SourceError` for a protocol that is not allowed."""
    scheme, separator, _ = repository.partition("://")
    if separator and scheme in _PROTOCOLS.split(":"):
        return repository
    if not separator and OVER_SSH.match(repository):
        return repository  # user@host:path of ssh
    if repository and not separator and "::" not in repository and (local := local_path(base, repository)).is_dir():
        return str(local)
    raise SourceError(
        f"{key}: {redact(repository)!r} is not a repository that may be fetched",
        hint="expected https://, ssh://, file://, user@host:path, or an existing folder",
    )


def _fetch(git: str, folder: Path, url: str, source: GitSource, key: str, *, with_login: bool) -> None:
    proxy = proxies.proxy_for(url) if url.startswith("https://") else None
    if proxy is not None:
        proxy.check()
    command = ("fetch", "--quiet", "--depth=1", "--no-tags", "--", url, source.commit)
    result = _git(git, folder, *command, with_login=with_login)
    if result.returncode == 0:
        return
    _refused(result.stderr, url, key, proxy, source.commit)


def _refused(stderr: str, url: str, key: str, proxy: proxies.Proxy | None, commit: str = "") -> NoReturn:
    """Raise what an answer of git means."""
    # git repeats the address, and may repeat what a server says about it: no credentials of either may pass.
    said = re.sub(r"//[^/@\s]*@", "//", proxies.without_logins(masked(stderr, url)))
    final = proxy.refusal(said) if proxy is not None else None
    if final is not None:
        raise SourceError(f"{key}: {final.message}", hint=final.hint)
    reason = next((line for line in reversed(said.strip().splitlines()) if line.startswith(("fatal:", "error:"))), said)
    if _BROKEN.search(said):
        through = f", through {proxy.named}" if proxy is not None else ""
        raise Transient(f"git: {reason.strip()[-300:]}{through}", hint=proxy.mend if proxy is not None else None)
    if _ASKED.search(said):
        raise SourceError(f"{key}: the server asks for a login, or knows no such repository", hint=login_hint(url))
    if "dubious ownership" in said:
        raise SourceError(
            f"{key}: {redact(url)} belongs to another user, and git does not read from there",
            hint="run the command as its owner, or make a copy of your own: git clone --mirror",
        )
    if re.search(r"not our ref|couldn't find remote ref|unadvertised object", said):
        raise SourceError(
            f"{key}: the repository does not hand out commit {commit}",
            hint="check the commit id; a commit that no branch or tag holds any more cannot be fetched",
        )
    raise SourceError(f"{key}: git: {reason.strip()[-300:]}", hint="check address and access: git ls-remote ADDRESS")


def _git(
    program: str, folder: Path, *arguments: str, with_login: bool = False, extra: Mapping[str, str] = _NOTHING
) -> subprocess.CompletedProcess[str]:
    """Run git without prompts, hooks, helpers or any configuration of user and system; `with_login` with ~/.netrc."""
    settings = {
        "core.hooksPath": "/dev/null",
        "credential.helper": "",
        "fetch.fsckObjects": "true",
        "fetch.recurseSubmodules": "false",
        "gc.auto": "0",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "60",
        "tar.umask": "0022",
    }
    environment = {name: value for name in _KEPT if (value := os.environ.get(name))}
    environment |= {**proxies.for_git(), **extra}
    environment |= {
        "HOME": os.environ.get("HOME", "") if with_login else os.devnull,  # where git's HTTP library looks for ~/.netrc
        "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
        "GIT_ASKPASS": "/bin/false",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_SSH_COMMAND": _SSH,
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        "SSH_ASKPASS": "/bin/false",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    try:
        return subprocess.run(
            [program, "-C", str(folder), *options, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadError(
            f"git {arguments[0]} has not ended after {_TIMEOUT_S / 3600:.0f} h", hint="check the repository's address"
        ) from error


def _normalize(plain: Path, store: Store, expected: str | None, key: str) -> str:
    """Store what `git archive` wrote in a form that no version of git can change; returns its sha256."""
    with (
        tarfile.open(plain, encoding="utf-8", errors="surrogateescape") as tar,
        store.writer(expected=expected, needed=plain.stat().st_size, subject=key) as writer,
        tarfile.open(
            fileobj=writer, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
        ) as out,
    ):
        for member in sorted(tar, key=lambda member: os.fsencode(member.name)):
            entry = tarfile.TarInfo(f"{PREFIX}/{member.name}")
            entry.type, entry.size, entry.linkname, entry.mtime = member.type, member.size, member.linkname, EPOCH
            entry.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            out.addfile(entry, tar.extractfile(member) if member.isreg() else None)
    return writer.digest
