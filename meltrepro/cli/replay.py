"""`meltrepro replay`: repeat a recorded campaign and say whether it was reproduced, and if not, why."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro.cli.common import EngineOption, OnlyOption
from meltrepro.errors import Differs, Inconclusive

if TYPE_CHECKING:
    from meltrepro.replay.replay import Replayed
    from meltrepro.settings import Settings


def command(
    what: Annotated[str, typer.Argument(metavar="RUN|RECORD|BUNDLE", help="A campaign, an MLflow run id or a bundle.")],
    only: OnlyOption = [],
    engine: EngineOption = "docker",
    margin: Annotated[float | None, typer.Option(help="Largest relative difference that counts as the same.")] = None,
    maximum: Annotated[int | None, typer.Option(help="Most trials per cell.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Verify or rebuild the artifacts, repeat the same trials with the same seeds, compare."""
    from meltrepro import interrupts
    from meltrepro import settings as settings_module
    from meltrepro.cli.run import prepare
    from meltrepro.cli.session import open_session
    from meltrepro.measure.records import read_campaign
    from meltrepro.replay.replay import recorded_requests, replay
    from meltrepro.replay.show import html, text
    from meltrepro.spec.campaign import LOCK, MANIFEST
    from meltrepro.stats.equivalence import Verdict

    settings = settings_module.load()
    folder = _campaign(what, settings)
    recorded = read_campaign(folder)
    overrides = [f"replay.{name}={value}" for name, value in (("margin", margin), ("maximum", maximum)) if value]
    with (
        interrupts.raising(),
        open_session(
            folder / MANIFEST, overrides, only, engine=engine, locked=True, quiet=json, lock_file=folder / LOCK
        ) as session,
    ):
        declared = session.loaded.manifest.replay
        session.repeat(declared.maximum)
        setup = prepare(session, tuple(only), tracked=False, requests=recorded_requests(recorded))
        answer = replay(recorded, setup, declared, settings, session.workshop.sink)
    (answer.folder / "comparison.html").write_text(html(answer.comparison), encoding="utf-8")
    if json:
        document = {"verdict": answer.verdict, "reasons": answer.reasons, **answer.comparison.as_json()}
        typer.echo(json_module.dumps(document, indent=2))
    else:
        typer.echo(text(answer.comparison), nl=False)
        typer.echo(f"\n{answer.verdict}")
    _end(answer, reproduced=answer.verdict is Verdict.reproduced, differs=answer.verdict is Verdict.differs)


def _campaign(what: str, settings: Settings) -> Path:
    """The campaign folder that a user means; a bundle is imported first."""
    from meltrepro.measure.records import find_campaign

    path = Path(what)
    if not path.is_file():
        return find_campaign(settings.records, what)
    from meltrepro.cli.console import console
    from meltrepro.replay.bundle import import_bundle
    from meltrepro.store.cas import Store
    from meltrepro.store.fetch import Fetcher

    store = Store(settings.cache / "store")
    with console() as sink:
        imported = import_bundle(path, store, Fetcher(store, settings, sink), settings.records, sink)
    return imported.campaigns[0]


def _end(answer: Replayed, *, reproduced: bool, differs: bool) -> None:
    if reproduced:
        return
    reasons = "\n".join(f"  {reason}" for reason in answer.reasons)
    hint = f"the whole comparison is in {answer.folder / 'comparison.html'}"
    if differs:
        raise Differs(f"DIFFERS:\n{reasons}", hint=hint)
    raise Inconclusive(f"INCONCLUSIVE:\n{reasons}", hint=hint)
