"""One step of a model: a tool of a bundle, without network, over files that it sees; what it leaves is plain."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meltrepro import untrusted
from meltrepro.build.log import check_killed, check_space, writing_below
from meltrepro.build.model import Artifact, Engine, Execution, Output
from meltrepro.errors import BuildError
from meltrepro.store.cas import Store


@dataclass(frozen=True)
class StepInput:
    """What a step begins with."""

    mounts: Mapping[str, Path]
    """As the step sees it: `/source`, or below it the files of a model that has several."""
    digest: str | None = None
    """Of what the store has; `None` of several files."""

    def on_disk(self, scratch: Path) -> Path:
        """One path of it, for a step that this process takes."""
        if "/source" in self.mounts:
            return self.mounts["/source"]
        for inside, path in self.mounts.items():
            link = scratch / "source" / inside.removeprefix("/source/")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        return scratch / "source"

    def copied(self, folder: Path) -> Path:
        """All of it as one folder."""
        with writing_below(folder.parent):
            for inside, path in self.mounts.items():
                copy = folder / inside.removeprefix("/source/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
        return folder


def stored(store: Store, digest: str, output: Output) -> StepInput:
    """What an earlier step made; raises `CorruptStore`."""
    path = store.verify(digest)
    return StepInput({"/source": path if output == "file" else store.unpack(digest) / "model"}, digest)


def run_tool(
    engine: Engine,
    bundle: Artifact,
    command: Sequence[str],
    readonly: Mapping[str, Path],
    scratch: Path,
    log: Path,
    what: str,
    output: Output = "file",
    name: str = "model",
) -> Path:
    """Run a command of a bundle without network; returns what it left at `/out/<name>`, in a folder of `scratch`.

    `readonly` are the files that it sees, by absolute path; `what` is for messages. Raises `BuildError` with what it said
    last, `StoreError` (no space), `EngineError` (killed, or the engine went away).
    """
    out = scratch / "out"
    with writing_below(scratch):
        out.mkdir()
    end = engine.execute(
        Execution(argv=command, bundle=bundle, readonly=readonly, writable={"/out": out}, stdout=log, stderr=log)
    )
    result = out / name
    if end.status != 0 or not os.path.lexists(result):
        said = log.read_text(errors="replace").splitlines()
        tail = "\n".join([line for line in said if line.strip()][-8:])
        check_space(scratch, tail)
        check_killed(end.status, what, log)
        raise BuildError(f"{what} ended with status {end.status}:\n{tail}", hint=f"log: {log}")
    _require_plain(result, output, what)
    return result


def _require_plain(result: Path, output: Output, what: str) -> None:
    """Raise `BuildError` for links, which could lead anywhere, and the like; a program may have come with a bundle."""
    left = untrusted.odd(result)
    if output == "folder" and stat.S_ISDIR(os.lstat(result).st_mode):
        odd = odd_below(result)
        left = untrusted.odd(odd) if odd is not None else None
    elif output == "folder":
        left = left or "a file"
    if left is not None:
        raise BuildError(f"{what} left {left} in place of a {output}", hint="do not trust where the program came from")


def odd_below(folder: Path) -> Path | None:
    """The first by name of what is neither a plain file nor a folder."""
    inside = (Path(parent, name) for parent, folders, files in os.walk(folder) for name in (*folders, *files))
    return min((path for path in inside if not _is_plain(path)), default=None)


def _is_plain(path: Path) -> bool:
    mode = os.lstat(path).st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
