"""`meltrepro doctor`: what is here, what is missing, how to get it; `--fix` gets it where that is allowed."""

from __future__ import annotations

import json as json_module
import os
import subprocess
from dataclasses import asdict
from typing import Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.cli import checks
from meltrepro.cli.checks import Check, State
from meltrepro.errors import EngineError
from meltrepro.settings import Settings


def command(
    fix: Annotated[bool, typer.Option("--fix", help="Install and start what the default path needs.")] = False,
    tests: Annotated[bool, typer.Option("--tests", help="Count in what only the test suite needs.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the private engine that --fix started.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    settings = settings_module.load()
    if stop:
        from meltrepro.build import daemon

        typer.echo("private engine stopped" if daemon.stop(settings) else "no private engine was running")
        return
    if fix:
        _fix(settings, tests=tests)
    found = checks.run_checks(settings, tests=tests)
    if json:
        typer.echo(json_module.dumps([asdict(check) for check in found], indent=2))
    else:
        _print(found)
    missing = [check for check in found if check.state is State.missing]
    if missing:
        remedies = "; ".join(dict.fromkeys(check.remedy for check in missing))
        first = "" if fix else f"meltrepro doctor --fix{' --tests' if tests else ''} does what it may; by hand: "
        raise EngineError(f"missing: {', '.join(check.name for check in missing)}", hint=first + remedies)


def _print(found: list[Check]) -> None:
    width = max(len(check.name) for check in found) + 2
    for check in found:
        typer.echo(f"{check.state:10}{check.name:{width}}{check.found}")
        if check.state is not State.ok:
            typer.echo(f"{'':{10 + width}}for {check.purpose}; {check.remedy}")


def _say(text: str) -> None:
    """What is about to be done; on stderr, since stdout may be JSON."""
    typer.echo(text, err=True)


def _fix(settings: Settings, *, tests: bool) -> None:
    from meltrepro.build import daemon

    wanted = [tool for tool in checks.TOOLS if tool.required or tool.offered or (tests and tool.for_tests)]
    refused: EngineError | None = None
    try:
        daemon.connect(settings).close()
    except EngineError as error:
        refused = error
        if not os.environ.get("DOCKER_HOST"):
            wanted.append(checks.DOCKER)
    packages = sorted({tool.package for tool in wanted if checks.find(tool.name) is None})
    if packages:
        from meltrepro.cli import apt

        apt.install(packages, _say)
    if refused is not None:
        _start_engine(settings, refused)


def _start_engine(settings: Settings, refused: EngineError) -> None:
    from meltrepro.build import daemon
    from meltrepro.cli import apt

    if os.environ.get("DOCKER_HOST"):
        raise EngineError(refused.message, hint="DOCKER_HOST names this engine: start it, or unset the variable")
    if os.geteuid() != 0:
        how = "systemctl start docker" if apt.systemd() else "meltrepro doctor --fix"
        raise EngineError(refused.message, hint=f"run as root: {how}; or work without: --engine process")
    if not apt.systemd():
        daemon.start(settings, _say)
        _say("it keeps running; stop it with: meltrepro doctor --stop")
        return
    _say("starting: systemctl start docker")
    result = subprocess.run(["systemctl", "start", "docker"], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise EngineError(f"systemctl start docker: {result.stderr.strip()}", hint="see: journalctl -u docker -n 20")
    daemon.connect(settings).close()
