"""The program itself: what a user sees of commands, mistakes, faults and interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from meltrepro import __version__
from meltrepro.cli import app
from meltrepro.errors import DigestMismatch, ManifestError, Problem
from tests.support.manifests import GOOD, write

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "specs" / "quickstart.yaml"
HEAVY = ("mlflow", "docker", "paramiko", "adbutils", "pymobiledevice3", "numpy", "scipy", "rich", "jinja2", "requests")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MELTREPRO_DEBUG", raising=False)
    return tmp_path / "home"


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def raises(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a command into the table that only raises."""

    def command() -> None:
        raise error

    monkeypatch.setattr(app, "load_command", lambda name: _single(name, command))


def _single(name: str, function: Callable[[], None]) -> object:
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(function)
    return typer.main.get_command(single)


# -- what it does -------------------------------------------------------------------------------------------------


def test_help_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, line in app.COMMANDS.items():
        assert name in shown
        assert line in shown
    assert app.main([]) == 0
    assert capsys.readouterr().out == shown


def test_every_command_exists() -> None:
    for name in app.COMMANDS:
        assert app.load_command(name).name in (name, None, "")


@pytest.mark.parametrize("arguments", [["--help"], ["validate", str(SPEC)], ["schema"], ["run", "--help"]])
def test_the_start_imports_nothing_heavy(arguments: list[str]) -> None:
    allowed = {"jinja2"} if "validate" in arguments else set[str]()  # chat templates say how long prompts are
    code = (
        "import sys; from meltrepro.cli.app import main; code = main(sys.argv[1:]); "
        f"print(code, sorted(set(sys.modules) & {set(HEAVY) - allowed!r}))"
    )
    assert python("-c", code, *arguments).stdout.splitlines()[-1] == "0 []"


def test_the_program_starts_from_a_module_and_says_its_version() -> None:
    done = python("-m", "meltrepro", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"meltrepro {__version__}\n", "")


def test_validate_says_ok_for_each(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = write(tmp_path, GOOD)
    assert app.main(["validate", str(good), str(SPEC), "--set", "protocol.seed=3"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"ok  {good}  small: 1 model, 1 framework, 1 target, 1 workload"
    assert second.startswith(f"ok  {SPEC}  quickstart: ")


def test_every_example_is_valid_names_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    specs = [str(path) for path in SPEC.parent.glob("*.yaml") if ".lock." not in path.name]
    assert len(specs) >= 3
    assert app.main(["validate", *specs]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(specs)


def test_validate_says_what_is_wrong_with_all_of_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = write(tmp_path, GOOD)
    bad = write(tmp_path, GOOD.replace("quantizations", "quantisation"), "bad.yaml")
    unknown = write(tmp_path, GOOD.replace("q4_0", "q4_9").replace("2024-02-27", "2024-02-28"), "unknown.yaml")
    assert app.main(["validate", str(bad), str(good), str(unknown), str(tmp_path / "none.yaml")]) == 3
    shown = capsys.readouterr()
    release = "frameworks.llama.cpp.release: unknown release of llama.cpp '2024-02-28' (did you mean '2024-02-27'?)"
    assert shown.out.startswith(f"ok  {good}  small: ")
    assert [line.replace(f"{tmp_path}/", "") for line in shown.err.splitlines()] == [
        "error: bad.yaml:7:5: models.m: unknown key 'quantisation' (did you mean 'quantizations'?)",
        f"error: unknown.yaml:9:24: {release}",
        "error: unknown.yaml:7:27: models.m.quantizations[1]: unknown quantization 'q4_9' (did you mean 'q4_K'?)",
        "error: none.yaml:1:1: the file none.yaml does not exist",
    ]


def test_schema_to_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert app.main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert app.main(["schema", "-o", str(tmp_path / "s.json")]) == 0
    assert (tmp_path / "s.json").read_text() == printed
    assert capsys.readouterr().out == f"{tmp_path / 's.json'}: written\n"
    assert app.main(["schema", "-o", str(tmp_path / "s.json" / "below")]) == 14
    assert capsys.readouterr().err.startswith("error: ")


# -- mistakes on the command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["valdate"], "No such command 'valdate'. Did you mean 'validate', 'calibrate'?", "see meltrepro --help"),
        (["xyzzy"], "No such command 'xyzzy'.", "see meltrepro --help"),
        (["validate"], "Missing argument 'SPEC'.", "see meltrepro validate --help"),
        (["validate", "--nope"], "No such option: --nope", "see meltrepro validate --help"),
        (["--nope"], "No such option: --nope", "see meltrepro --help"),
        (["schema", "manifest", "extra"], "Got unexpected extra argument(s) (extra)", "see meltrepro schema --help"),
    ],
)
def test_mistakes(arguments: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\nnext: {hint}\n"


def test_a_command_that_this_build_lacks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    app.program.cache_clear()
    monkeypatch.setitem(app.COMMANDS, "later", "Not yet.")
    try:
        assert app.main(["later"]) == 2
    finally:
        app.program.cache_clear()
    assert capsys.readouterr().err == "error: this build of meltrepro has no command 'later'\n"


# -- errors, faults, interruptions --------------------------------------------------------------------------------


def test_an_error_is_a_message_a_hint_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raises(DigestMismatch("expected a, got b", hint="fetch it again"), monkeypatch)
    assert app.main(["gc"]) == 12
    assert capsys.readouterr().err == "error: expected a, got b\nnext: fetch it again\n"


def test_control_characters_reach_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem("a\x1b[2J.yaml", 1, 1, "", "wrong\r\x07 \x9b31m")
    raises(ManifestError([problem]), monkeypatch)
    assert app.main(["gc"]) == 3
    assert capsys.readouterr().err == "error: a?[2J.yaml:1:1: wrong?? ?31m\n"


def test_a_fault_of_ours_is_one_line_and_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    raises(ZeroDivisionError("one\ntwo"), monkeypatch)
    assert app.main(["gc"]) == 70
    (file,) = (home / "crash").iterdir()
    assert capsys.readouterr().err.splitlines() == [
        "error: meltrepro itself failed: ZeroDivisionError: one two",
        f"next: please report this, with the traceback in {file}",
    ]
    saved = file.read_text()
    assert saved.startswith(f"meltrepro {__version__}, Python 3.")
    assert "Traceback (most recent call last)" in saved
    assert saved.endswith("ZeroDivisionError: one\ntwo\n")


def test_a_fault_where_nothing_can_be_saved(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    home.write_text("a file where a folder belongs")
    raises(ZeroDivisionError("oh"), monkeypatch)
    assert app.main(["gc"]) == 70
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "MELTREPRO_DEBUG=1" in shown


@pytest.mark.parametrize("error", [ZeroDivisionError("oh"), DigestMismatch("oh")])
def test_debug_shows_the_traceback(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MELTREPRO_DEBUG", "1")
    raises(error, monkeypatch)
    assert app.main(["gc"]) == (70 if isinstance(error, ZeroDivisionError) else 12)
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_interrupt_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    raises(KeyboardInterrupt(), monkeypatch)
    assert app.main(["gc"]) == 130
    assert capsys.readouterr().err == "error: stopped\n"


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
from meltrepro import workflow
from meltrepro.cli import app

def waits(*_, **__):
    print("waiting", flush=True)
    time.sleep(60)

workflow.validate = waits
sys.exit(app.main(["validate", "spec.yaml"]))
"""


def test_ctrl_c_in_a_real_process() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=50)
    finally:
        process.kill()
    assert (process.returncode, shown) == (130, "error: stopped\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        ["/bin/bash", "-c", '"$0" -m meltrepro schema | (exec <&-; sleep 3); echo ${PIPESTATUS[0]}', sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{app.PIPE_EXIT}\n", "")


# -- completion ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("meltrepro va", {"validate"}),
        ("meltrepro validate --", {"--set", "--json", "--help"}),
        ("meltrepro ", set(app.COMMANDS)),
    ],
)
def test_completion_of_the_shell(words: str, expected: set[str]) -> None:
    at = str(len(words.split(" ")) - 1)
    done = python("-m", "meltrepro", _MELTREPRO_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=at)
    assert done.stderr == ""
    assert set(done.stdout.split()) == expected


def test_the_completion_script() -> None:
    done = python("-m", "meltrepro", "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0
    assert "_MELTREPRO_COMPLETE=complete_bash" in done.stdout
