"""Where things live: the only module that reads locations and switches from the environment.

What each variable means: docs/environment.md.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from meltrepro.errors import UsageError

_COMMON = (Path("/run/lock"), Path("/tmp"))


@dataclass(frozen=True)
class Settings:
    """Locations and switches of one process."""

    cache: Path
    home: Path
    offline: bool
    mirrors: Path | None
    jobs: int
    base_image: str | None = None
    logins: frozenset[str] = frozenset()
    """Servers that get the user's login from ~/.netrc though only a manifest names them."""

    @property
    def store(self) -> Path:
        """Folder of what is fetched and built, by digest."""
        return self.cache / "store"

    @property
    def records(self) -> Path:
        """Folder of campaigns and their records."""
        return self.home / "records"

    @property
    def studies(self) -> Path:
        """Folder of studies and their reports."""
        return self.home / "studies"

    @property
    def tracking_uri(self) -> str:
        """MLflow database that is used where neither manifest nor environment names one."""
        return f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def crashes(self) -> Path:
        """Folder of tracebacks of faults in meltrepro itself."""
        return self.home / "crash"

    @property
    def run(self) -> Path:
        """Folder of sockets and pid files."""
        return self.cache / "run"


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; raises `UsageError` for a value that cannot be meant."""
    jobs = environ.get("MELTREPRO_JOBS") or str(len(os.sched_getaffinity(0)))
    if not re.fullmatch(r"[1-9][0-9]{0,3}", jobs):
        raise UsageError(f"MELTREPRO_JOBS: expected a whole number from 1 to 9999, got {jobs[:40]!r}")
    mirrors = environ.get("MELTREPRO_MIRRORS")
    return Settings(
        cache=_folder(environ, "MELTREPRO_CACHE", platformdirs.user_cache_path("meltrepro")),
        home=_folder(environ, "MELTREPRO_HOME", platformdirs.user_data_path("meltrepro")),
        offline=_switch(environ, "MELTREPRO_OFFLINE"),
        mirrors=_place("MELTREPRO_MIRRORS", mirrors) if mirrors else None,
        jobs=int(jobs),
        base_image=_by_digest(environ.get("MELTREPRO_BASE_IMAGE")),
        logins=_hosts(environ.get("MELTREPRO_LOGINS", "")),
    )


def locks(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of the locks of devices, which no other setting moves: the first where this machine lets everybody write."""
    if given := environ.get("MELTREPRO_LOCKS"):
        return _place("MELTREPRO_LOCKS", given)
    return next((folder for folder in _COMMON if _is_everybodys(folder)), _COMMON[-1])


def debug() -> bool:
    """Whether errors are shown with their tracebacks."""
    return os.environ.get("MELTREPRO_DEBUG", "0").strip().lower() not in _OFF


_ON, _OFF = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def _switch(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "").strip().lower()
    if value not in (*_ON, *_OFF):
        raise UsageError(f"{name}: expected 0 or 1, got {value[:40]!r}")
    return value in _ON


def _hosts(written: str) -> frozenset[str]:
    names = re.split(r"[,\s]+", written.strip().lower())
    for name in filter(None, names):
        if not re.fullmatch(r"[a-z0-9_.-]+|[0-9a-f:]+", name):
            raise UsageError(
                f"MELTREPRO_LOGINS: expected names of servers, separated by commas, got {name[:80]!r}",
                hint="without scheme, port and path: models.example.org,git.example.org",
            )
    return frozenset(filter(None, names))


def _folder(environ: Mapping[str, str], name: str, default: Path) -> Path:
    value = environ.get(name)
    folder = _place(name, value or str(default))
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{name}: expected a folder, but {folder} is a file", hint=f"point {name} to another place")
    return folder


def _place(name: str, value: str) -> Path:
    """The absolute path that a variable names; raises `UsageError` for one that cannot even be looked at."""
    hint = f"point {name} to another place"
    try:
        path = Path(value).expanduser().absolute()
        path.exists()
    except OSError as error:
        raise UsageError(f"{name}: {value[:200]} cannot be looked at: {error.strerror}", hint=hint) from error
    except RuntimeError as error:  # the home of a user that nobody is
        raise UsageError(f"{name}: {value[:200]}: {error}", hint=hint) from error
    return path


def _is_everybodys(folder: Path) -> bool:
    """Whether everybody may write there, and nobody may remove what others wrote."""
    try:
        status = folder.stat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_mode & 0o1002 == 0o1002 and status.st_uid == 0


def _by_digest(image: str | None) -> str | None:
    if not image:
        return None
    if not re.search(r"(^|@)sha256:[0-9a-f]{64}\Z", image):
        raise UsageError(
            f"MELTREPRO_BASE_IMAGE: expected an image by digest (NAME@sha256:... or sha256:...), got {image[:200]!r}",
            hint="a tag moves; docker images --digests shows the digest of an image",
        )
    return image
