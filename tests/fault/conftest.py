"""What the tests of tampering share: a project to tamper with, and commands that must refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro import errors
from meltrepro.cli.app import main
from tests.fault import project as projects
from tests.fault.project import Project, Refusal, Refuse


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project as it should be; no test changes it."""
    return projects.make(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it to tamper with, which the commands work on."""
    copy = projects.copied(made, tmp_path / "project")
    projects.stand_in(monkeypatch, copy.folder)
    return copy


@pytest.fixture
def equipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of which nothing was built or measured, which the commands work on."""
    projects.stand_in(monkeypatch, tmp_path)
    return projects.equip(tmp_path)


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run a command that must refuse with this error: message, next step, no traceback."""

    def run(error: type[errors.MeltreproError], *arguments: object) -> Refusal:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr().err
        assert code == error.exit_code, said
        assert "Traceback" not in said
        message, _, hint = said.partition("error: ")[2].rpartition("next: ")
        assert message.strip()
        assert hint.strip(), "there is no next step"
        return Refusal(message, hint)

    return run
