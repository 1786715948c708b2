"""Running a tool that turns `/source` into `/out/model`: a quantizer, a converter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from meltrepro import untrusted
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
    if end.status != 0 or not os.path.lexists(result):
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        check_room(scratch, tail)
        check_killed(end.status, what, log)
        raise BuildError(f"{what} ended with status {end.status}:\n{tail}", hint=f"log: {log}")
    return plain_result(result, what)


def plain_result(result: Path, what: str) -> Path:
    """What a program left, where it is a plain file; raises `BuildError` for a link, which could lead anywhere, and the like."""
    odd = untrusted.odd(result)
    if odd is not None:
        raise BuildError(f"{what} left {odd} in place of a file", hint="do not trust where the program came from")
    return result
