"""Running a tool that turns `/source` into `/out/model`: a quantizer, a converter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from meltrepro.build.causes import check_killed, check_room, writing_below
from meltrepro.build.model import Artifact, Engine, Execution
from meltrepro.errors import BuildError


def transform(
    engine: Engine,
    bundle: Artifact,
    command: Sequence[str],
    readonly: Mapping[str, Path],
    scratch: Path,
    log: Path,
    what: str,
) -> Path:
    """Run a command of a bundle without network; returns the model that it left in a folder of `scratch`.

    `readonly` are the files that it sees, by absolute path; `what` is for messages, as in "quantizing NAME". Raises
    `BuildError` with what it said last, `StoreError` (no room), `EngineError` (killed, or the engine went away).
    """
    out = scratch / bundle.key[:16]
    with writing_below(scratch):
        out.mkdir()
    end = engine.execute(
        Execution(argv=command, bundle=bundle, readonly=readonly, writable={"/out": out}, stdout=log, stderr=log)
    )
    result = out / "model"
    if end.status != 0 or not result.exists():
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        check_room(scratch, tail)
        check_killed(end.status, what, log)
        raise BuildError(f"{what} ended with status {end.status}:\n{tail}", hint=f"log: {log}")
    return result
