"""`meltrepro doctor`: what is here, what is missing, how to get it; `--fix` gets it where that is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, get_args

import typer

from meltrepro import workflow
from meltrepro.cli.common import EngineOption, JsonOption
from meltrepro.cli.documents import CheckDocument
from meltrepro.cli.json_output import print_json
from meltrepro.errors import EngineError
from meltrepro.workflow.machine import Need


def command(
    fix: Annotated[bool, typer.Option("--fix", help="Install and start what the default path needs.")] = False,
    tests: Annotated[bool, typer.Option("--tests", help="Count in what only the test suite needs.")] = False,
    lab: Annotated[bool, typer.Option("--lab", help="Count in what virtual devices need.")] = False,
    engine: EngineOption = "docker",
    stop: Annotated[bool, typer.Option("--stop", help="Stop the private engine that --fix started.")] = False,
    json: JsonOption = False,
) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    if stop:
        typer.echo("private engine stopped" if workflow.stop_engine() else "no private engine was running")
        return
    wanted = {"tests": tests, "lab": lab, "process": engine == "process"}
    needs = [need for need in get_args(Need) if wanted[need]]
    if fix:
        workflow.repair_machine(needs=needs, say=_say)
    found = workflow.check_machine(needs=needs)
    if json:
        print_json("doctor", [CheckDocument(**asdict(check)) for check in found])
    else:
        _print(found)
    missing = [check for check in found if check.state == "missing"]
    if missing:
        remedies = "; ".join(dict.fromkeys(check.remedy for check in missing))
        options = [*(["--tests"] if tests else []), *(["--lab"] if lab else [])]
        options += ["--engine", engine] if engine == "process" else []
        first = "" if fix else f"{' '.join(['meltrepro doctor --fix', *options])} does what it may; by hand: "
        raise EngineError(f"missing: {', '.join(check.name for check in missing)}", hint=first + remedies)


def _print(found: Sequence[workflow.Check]) -> None:
    width = max(len(check.name) for check in found) + 2
    for check in found:
        typer.echo(f"{check.state:10}{check.name:{width}}{check.found}")
        if check.state != "ok":
            typer.echo(f"{'':{10 + width}}for {check.purpose}; {check.remedy}")


def _say(text: str) -> None:
    """What is about to be done; on stderr, since stdout may be JSON."""
    typer.echo(text, err=True)
