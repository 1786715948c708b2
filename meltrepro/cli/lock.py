"""`meltrepro lock`: pin every input of a manifest by digest, or move one pin and show what that changes."""

from __future__ import annotations

import difflib
from typing import Annotated

import typer

from meltrepro.build import interpreter
from meltrepro.build.pipeline import Builder
from meltrepro.cli.common import SetOption, SpecArgument
from meltrepro.cli.console import console
from meltrepro.errors import LockError, UsageError
from meltrepro.manifest.lock import dump_lock
from meltrepro.manifest.yaml.suggest import near_miss
from meltrepro.store import checkpoint
from meltrepro.store.source import key_of
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
        pins = session.tools.pins
        for name in upgrade:
            _drop(session, name)
        session.pin()
        session.tools.layers()
        pins.record({}, Builder(session.tools, session.modules).recipe_digests(session.plan))
        lock = session.completed()
        after = dump_lock(lock)
        if after != before and not check:
            session.save_lock()
    difference = list(
        difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="", n=0)
    )
    if before:
        for line in difference[2:]:
            typer.echo(line)
    if not difference:
        typer.echo(f"{session.lock_path}: current")
    elif check:
        raise pins.outdated(session.lock_path, session.loaded.path)
    else:
        typer.echo(f"{session.lock_path}: written")


def _drop(session: Session, name: str) -> None:
    """Take the pins that `name` stands for out of the lock; they are then taken anew."""
    tools, pins = session.tools, session.tools.pins
    match name:
        case "base":
            tools.forget_base()
            pins.set(base=None, toolchain=None)
        case "toolchain":
            pins.set(toolchain=None)
        case "interpreter":
            interpreter.forget(tools.store)
            pins.set(interpreter=None)
        case _:
            pins.drop(_sources(session, name), name)


def _sources(session: Session, name: str) -> set[str]:
    """The keys of the sources in the lock that belong to a model or framework, or are named so themselves."""
    pins, manifest = session.tools.pins, session.loaded.manifest
    wanted = {source for source in pins.lock.sources if name in (source, source.split(":")[1].split("==")[0])}
    if name in manifest.models:
        wanted |= {key for key in pins.lock.sources if checkpoint.is_of(key, manifest.models[name].source)}
    for bundle in session.plan.bundles:
        if bundle.framework_name == name:
            wanted |= {key_of(source) for source in bundle.sources.values()}
    if not wanted:
        known = ["base", "toolchain", "interpreter", *manifest.models, *manifest.frameworks, *pins.lock.sources]
        raise LockError(
            f"nothing in the lock is called {name!r}", hint=near_miss(name, known) or f"known: {', '.join(known[:8])}"
        )
    return wanted
