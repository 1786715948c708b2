"""Opening targets, whatever their kinds."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain

from meltrepro.build.model import Maker
from meltrepro.errors import UsageError
from meltrepro.manifest.targets import TargetOptions
from meltrepro.registry import TARGETS
from meltrepro.settings import Settings
from meltrepro.targets.base import Engines, Target, TargetKind


def kinds() -> list[TargetKind]:
    """Every kind that there is; one whose package is broken is left out, and tells whoever asks for it by name."""
    found: list[TargetKind] = []
    for kind in TARGETS.kinds():
        with suppress(UsageError):
            found.append(TARGETS.get(kind))
    return found


def makers() -> dict[str, Callable[[], Maker]]:
    """What builds programs that no engine can, by the names that recipes have for them."""
    return {name: maker for kind in kinds() for name, maker in kind.makers.items()}


def named(text: str | None, root: str | None, settings: Settings) -> TargetOptions:
    """The device that a user calls so, as a manifest would have it; raises `UsageError` for a name that none would have.

    A name that no kind knows is taken for that of a device of the first kind which takes any.
    """
    from pydantic import ValidationError

    prefix, colon, _ = (text or "").partition(":")
    asked = [TARGETS.get(prefix)] if colon and TARGETS.has(prefix) else kinds()
    try:
        claims = (kind.named(text, settings) for kind in asked)
        bare = (
            kind.named(f"{kind.kind}:{text}", settings)
            for kind in asked
            if not text or not text.startswith(f"{kind.kind}:")
        )
        options = next((each for each in chain(claims, bare) if each is not None), None)
        if options is None:
            raise UsageError(f"{text!r} names no device", hint="see: meltrepro devices")
        if root is None:
            return options
        return type(options).model_validate({**options.model_dump(exclude_unset=True), "root": root})
    except ValidationError as error:
        what = "names no device" if root is None else f"with the folder {root!r} names no device"
        raise UsageError(f"{text!r} {what}", hint="see: meltrepro devices") from error


def require_known(text: str, attached: Iterable[str], settings: Settings) -> None:
    """Raise `UsageError` for a name that is neither of a device that is there nor says its kind (`KIND:NAME`)."""
    prefix, colon, _ = text.partition(":")
    there = [name for name in attached if name]
    if text in there or (colon and TARGETS.has(prefix)) or any(kind.named(text, settings) for kind in kinds()):
        return
    near = difflib.get_close_matches(text, there, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(['this machine (host)', *there])}"
    raise UsageError(
        f"there is no device {text!r}",
        hint=f"{hint}; one that is not attached is written KIND:NAME, for example linux:{text}",
    )


def meant(text: str, attached: Iterable[str], settings: Settings) -> list[str]:
    """What a name that leads to no device may have been meant for: one that is attached, or one of another kind."""
    from pydantic import ValidationError

    prefix, colon, rest = text.partition(":")
    if TARGETS.has(prefix) and colon:
        return difflib.get_close_matches(text, list(attached), n=3)
    others = []
    for kind in kinds():
        name = f"{kind.kind}:{rest if colon else text}"
        with suppress(ValidationError):
            if kind.named(name, settings) not in (None, named(text, None, settings)):
                others.append(name)
    near = difflib.get_close_matches(text, [*attached, *(others if colon else ())], n=3)
    return near if colon else [*near, *others]


def open_target(entry: TargetOptions, settings: Settings, engines: Engines | None = None) -> Target:
    """One target; raises `TargetError` where its kind of link is not there."""
    target: Target = TARGETS.get(entry.kind).open(entry, settings, engines)
    return target
