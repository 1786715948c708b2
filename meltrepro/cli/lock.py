"""`meltrepro lock`: pin every input of a manifest by digest, or move one pin and show what that changes."""

from __future__ import annotations

import difflib
from dataclasses import astuple
from typing import Annotated

import typer

from meltrepro.build import interpreter
from meltrepro.cli.common import SetOption, SpecArgument
from meltrepro.cli.console import console
from meltrepro.errors import LockError, UsageError
from meltrepro.manifest.lock import Lock, dump_lock
from meltrepro.manifest.yaml.suggest import near_miss
from meltrepro.record.ids import artifact_id
from meltrepro.store import checkpoint
from meltrepro.workflow.session import Session, open_session


def command(
    spec: SpecArgument,
    set_: SetOption = [],
    upgrade: Annotated[
        list[str],
        typer.Option(
            "--upgrade", help="Move this pin: base, toolchain, interpreter, a model, a framework or a source."
        ),
    ] = [],
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail where the lock is not current.")] = False,
) -> None:
    """Write the lock of a manifest beside it."""
    with console() as sink, open_session(spec, set_, [], engine="docker", locked=False, sink=sink) as session:
        if session.altered and not check:
            raise UsageError(
                "--set changes what is pinned, and the lock belongs to the manifest as it is written",
                hint="change the manifest itself, or a copy of it",
            )
        before = session.lock_path.read_text(encoding="utf-8") if session.lock_path.exists() else ""
        for name in upgrade:
            session.workshop.lock = _without(session, session.workshop.lock, name)
        session.pin()
        session.workshop.layers()
        builder = session.workshop.builder(session.modules, session.loaded.path.parent)
        lock = builder.pin_recipes(session.plan)
        lock = session.completed(lock)
        after = dump_lock(lock)
        if after != before and not check:
            session.save_lock(lock)
    difference = list(
        difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="", n=0)
    )
    if before:
        for line in difference[2:]:
            typer.echo(line)
    if not difference:
        typer.echo(f"{session.lock_path}: current")
    elif check:
        raise session.outdated(lock)
    else:
        typer.echo(f"{session.lock_path}: written")


def _without(session: Session, lock: Lock, name: str) -> Lock:
    """The lock without the pins that `name` stands for; they are then taken anew."""
    if name == "base":
        session.workshop.forget_base()
        return lock.model_copy(update={"base": None, "toolchain": None})
    if name == "toolchain":
        return lock.model_copy(update={"toolchain": None})
    if name == "interpreter":
        interpreter.forget(session.workshop.store)
        return lock.model_copy(update={"interpreter": None})
    manifest = session.loaded.manifest
    wanted = {source for source in lock.sources if name in (source, source.split(":")[1].split("==")[0])}
    if name in manifest.models:
        wanted |= {key for key in lock.sources if checkpoint.is_of(key, manifest.models[name].source)}
    for bundle in session.plan.bundles:
        if bundle.framework_name == name:
            wanted |= {
                session.workshop.source_key(source, session.loaded.path.parent) for source in bundle.sources.values()
            }
    if not wanted:
        known = ["base", "toolchain", "interpreter", *manifest.models, *manifest.frameworks, *lock.sources]
        raise LockError(
            f"nothing in the lock is called {name!r}", hint=near_miss(name, known) or f"known: {', '.join(known[:8])}"
        )
    for key in wanted:
        session.workshop.forget(key)
    artifacts = {k: v for k, v in lock.artifacts.items() if name not in astuple(artifact_id(k))}
    sources = {key: value for key, value in lock.sources.items() if key not in wanted}
    return lock.model_copy(update={"sources": sources, "artifacts": artifacts})
