"""`meltrepro doctor`: what is here, what is missing, how to get it; `--fix` gets it where that is allowed."""

from __future__ import annotations

import json as json_module
import os
import subprocess
from typing import Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.cli import checks
from meltrepro.cli.checks import State
from meltrepro.errors import EngineError, MeltreproError
from meltrepro.settings import Settings


class DoctorError(MeltreproError):
    """Something that the default path needs is missing."""

    exit_code = 20


def command(
    fix: Annotated[bool, typer.Option("--fix", help="Install and start what the default path needs.")] = False,
    tests: Annotated[bool, typer.Option("--tests", help="With --fix: also what the test suite needs.")] = False,
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
    found = checks.run_checks(settings)
    if json:
        typer.echo(json_module.dumps([vars(check) for check in found], indent=2))
    else:
        width = max(len(check.name) for check in found)
        for check in found:
            typer.echo(f"{check.state:9}{check.name:{width + 2}}{check.found}")
            if check.state is not State.ok:
                typer.echo(f"{'':9}{'':{width + 2}}for {check.purpose}; {check.remedy}")
    missing = [check for check in found if check.state is State.missing]
    if missing:
        raise DoctorError(
            f"missing: {', '.join(check.name for check in missing)}",
            hint="; ".join(dict.fromkeys(check.remedy for check in missing))
            + ", or all at once: meltrepro doctor --fix",
        )


def _fix(settings: Settings, *, tests: bool) -> None:
    wanted = [tool for tool in checks.TOOLS if tool.required or tool.program == "dockerd" or (tests and tool.for_tests)]
    packages = sorted({tool.package for tool in wanted if checks.find(tool.program) is None})
    if packages:
        _install(packages)
    _start_engine(settings)


def _install(packages: list[str]) -> None:
    line = f"apt-get update && apt-get install {' '.join(packages)}"
    if not checks.debian():
        raise DoctorError(f"not here: {', '.join(packages)}", hint="this is no Debian: install their like by hand")
    if os.geteuid() != 0:
        raise DoctorError(f"not here: {', '.join(packages)}", hint=f"run as root: {line}")
    typer.echo(f"installing: {line}")
    for attempt in range(3):
        checks.apt(["update"])
        result = checks.apt(["install", "-y", "--no-install-recommends", *packages])
        if result.returncode == 0:
            return
        typer.echo(f"apt-get failed, try {attempt + 1} of 3")
    tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-6:])
    raise DoctorError(f"apt-get could not install {', '.join(packages)}:\n{tail}", hint=f"run by hand: {line}")


def _start_engine(settings: Settings) -> None:
    from meltrepro.build import daemon

    try:
        daemon.connect(settings).close()
        return
    except EngineError as error:
        if os.environ.get("DOCKER_HOST"):
            raise
        refused = error
    if os.geteuid() != 0:
        raise DoctorError(refused.message, hint="run as root: systemctl start docker; or work with --engine process")
    if checks.systemd():
        typer.echo("starting: systemctl start docker")
        subprocess.run(["systemctl", "start", "docker"], check=False)
        daemon.connect(settings).close()
        return
    daemon.start(settings, typer.echo)
    typer.echo("it keeps running; stop it with: meltrepro doctor --stop")
