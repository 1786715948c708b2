"""What a quantizer or converter leaves is taken only where it is a file: its program may have come with a bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from meltrepro.build.model import Artifact, Execution, Exit, Output, Recipe
from meltrepro.build.tool_run import run_tool
from meltrepro.errors import BuildError
from meltrepro.steps import Sink

LEFT: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a symbolic link": lambda path: path.symlink_to("/etc/hostname"),
}


@dataclass
class Engine:
    """One whose programs leave something at `/out/model`."""

    leave: Callable[[Path], None]
    name: str = "fake"

    def version(self) -> str:
        return "fake 1"

    def build(self, recipe: Recipe, out: Path, log: Path, sink: Sink, *, fresh: bool = False) -> Mapping[str, str]:
        raise AssertionError("nothing is built")

    def execute(self, execution: Execution) -> Exit:
        assert execution.stdout is not None
        execution.stdout.write_text("fine\n")
        self.leave(execution.writable["/out"] / "model")
        return Exit(0)

    def beside(self, execution: Execution) -> AbstractContextManager[str]:
        raise AssertionError("nothing is watched")

    def stop_strays(self, owner: str) -> int:
        return 0


def run(folder: Path, leave: Callable[[Path], None], output: Output = "file") -> Path:
    bundle = Artifact("q", "bundle", "0" * 64, "0" * 64, folder, folder, 1)
    return run_tool(Engine(leave), bundle, ["/bundle/q"], {}, folder, folder / "log", "quantizing m", output)


def write_weights(path: Path) -> None:
    path.write_text("weights")


def test_a_file_is_taken(tmp_path: Path) -> None:
    assert run(tmp_path, write_weights).read_text() == "weights"


@pytest.mark.parametrize("what", LEFT)
def test_nothing_else_is_opened(tmp_path: Path, what: str) -> None:
    with pytest.raises(BuildError, match=f"quantizing m left {what} in place of a file"):
        run(tmp_path, LEFT[what])


def write_folder(path: Path) -> None:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "weights").write_text("weights")


def test_a_folder_is_taken_where_one_is_made(tmp_path: Path) -> None:
    assert (run(tmp_path, write_folder, "folder") / "inner" / "weights").read_text() == "weights"


@pytest.mark.parametrize("where", ["", "inner/link"])
def test_nothing_in_a_folder_leads_out_of_it(tmp_path: Path, where: str) -> None:
    def leave(path: Path) -> None:
        if where:
            write_folder(path)
        (path / where if where else path).symlink_to("/etc")

    with pytest.raises(BuildError, match="left a symbolic link in place of a folder"):
        run(tmp_path, leave, "folder")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="left a file in place of a folder"):
        run(tmp_path, write_weights, "folder")
