"""Models among an app's documents, kept by their digest.

<root>/cas/<sha256>         a verified file
<root>/cas/<sha256>.ok      its size and time when it was verified: whether it is still the same file
<root>/cas/<sha256>.part    as much of it as has arrived
"""

from __future__ import annotations

import json
from pathlib import Path

from meltrepro.targets.base import Progress, silent
from meltrepro.targets.ios.files import Files, Stat

_FOLDER = "cas"


class PhoneCache:
    """The content-addressed folder below the root of one app."""

    def from_job(self, digest: str) -> str:
        """Where a file is, as a trial's folder sees it: only the phone knows where the app's own folder is."""
        return f"../../{_FOLDER}/{digest}"

    def deploy(self, files: Files, local: Path, digest: str, progress: Progress = silent) -> None:
        """Bring a file to the phone unless it is there; raises what `Files.push` raises.

        One that is there unverified, or was touched since, is read back once instead of being sent again.
        """
        name = f"{_FOLDER}/{digest}"
        there = files.stat(name)
        if there is not None and self._mark(files, name) == there:
            return
        if there is None or files.digest(name) != digest:
            files.make_folder(_FOLDER)
            if there is not None:
                files.remove(name)
            files.push(local, name, digest, progress)
        found = files.stat(name)
        if found is not None:
            content = {"sha256": digest, "size": found.size, "changed_us": found.changed_us}
            files.write(f"{name}.ok", json.dumps(content).encode())

    def clean(self, files: Files) -> int:
        """Remove every file; returns how many bytes that freed."""
        freed = 0
        for name in files.names(_FOLDER):
            found = files.stat(f"{_FOLDER}/{name}")
            freed += found.size if found is not None else 0
            files.remove(f"{_FOLDER}/{name}")
        return freed

    def _mark(self, files: Files, name: str) -> Stat | None:
        try:
            known = json.loads(files.read(f"{name}.ok", 1 << 16) or b"")
            return Stat(int(known["size"]), int(known["changed_us"]))
        except (ValueError, KeyError, TypeError):
            return None
