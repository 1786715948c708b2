"""Commands over a link: nothing in an argument is ever a command, and an end is only an end where it is marked."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.remote.link import Channel, Chunk
from meltrepro.targets.remote.shell import Shell, command_line
from tests.support.links import BreakingLink, LocalLink

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NASTY = [
    "",
    "-n",
    "-e",
    "$(id)",
    "`id`",
    "; id",
    "'",
    '"',
    "\\",
    "a\nb",
    "*",
    "~",
    "!x",
    "{a,b}",
    "é€😀",
    "$HOME",
    "&",
    "|",
    "#",
]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(LocalLink(tmp_path))


@given(st.lists(WORDS, max_size=5))
def test_arguments_arrive_as_they_are(words: list[str]) -> None:
    reply = Shell(LocalLink(Path("/"))).run(["printf", r"%s\0", *words]) if words else None
    if reply is not None:
        assert reply.out.decode().split("\0")[:-1] == words


def test_what_looks_like_a_command_is_none(shell: Shell) -> None:
    assert shell.run(["printf", r"%s\0", *NASTY]).out.decode().split("\0")[:-1] == NASTY


def test_arguments_of_scripts_arrive_as_they_are(shell: Shell) -> None:
    reply = shell.script('for word in "$@"; do printf "%s\\0" "$word"; done', *NASTY)
    assert reply.out.decode().split("\0")[:-1] == NASTY


def test_what_no_argument_can_hold_is_refused(shell: Shell) -> None:
    with pytest.raises(TargetError, match="NUL"):
        shell.run(["echo", "a\0b"])
    with pytest.raises(TargetError, match="no text"):
        shell.run(["echo", "\ud800"])
    with pytest.raises(TargetError, match="bytes"):
        shell.run(["echo", "x" * 40_000])


def test_status_and_streams(shell: Shell) -> None:
    reply = shell.run(["sh", "-c", "echo out; printf err >&2; exit 7"])
    assert (reply.status, reply.out, reply.err) == (7, b"out\n", "err")
    assert shell.run(["kill", "-0", "1"], silence_s=5).status in (0, 1)
    assert shell.run(["nonesuch"]).status == 127
    assert shell.run(["sh", "-c", "kill -9 $$"]).status == 137


def test_input_goes_in_and_output_comes_out(shell: Shell) -> None:
    data = bytes(range(256)) * 4096
    assert shell.run(["cat"], source=[data, b"", data], silence_s=5).out == data * 2
    got = bytearray()
    assert shell.run(["cat"], source=[data], sink=got.extend).out == b""
    assert bytes(got) == data


def test_a_command_that_does_not_want_all_of_its_input(shell: Shell) -> None:
    reply = shell.run(
        ["sh", "-c", "head -c 10 >/dev/null; echo 'No space left' >&2; exit 3"],
        source=itertools.repeat(b"x" * 65536, 2000),
    )
    assert reply.status == 3
    assert "No space left" in reply.err


def test_a_command_that_says_nothing_is_killed(shell: Shell, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TargetLost, match="nothing was heard for 0.3 s"):
        shell.run(["sh", "-c", "sleep 60 & echo $! > pid; sleep 60"], silence_s=0.3)
    assert time.monotonic() - began < 10
    child = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not _alive(child):
            return
        time.sleep(0.02)
    pytest.fail("its child lives on")


def test_an_answer_without_an_end_is_none(tmp_path: Path) -> None:
    for breaks_at in range(3):
        with pytest.raises(TargetLost):
            Shell(BreakingLink(LocalLink(tmp_path), breaks_at)).run(["echo", "hello"])
    with pytest.raises(TargetLost, match="went away in the middle of a command"):
        Shell(_Lying()).run(["echo", "hello"])


def test_a_command_that_fails_is_told_in_its_own_words(shell: Shell) -> None:
    with pytest.raises(TargetError, match="here: cannot make it: cat: .*No such file"):
        shell.expect(shell.run(["cat", "nonesuch"]), "make it")
    with pytest.raises(TargetError, match="exit status 5"):
        shell.expect(shell.run(["sh", "-c", "exit 5"]), "make it")


def test_endless_answers_are_cut_short(shell: Shell) -> None:
    with pytest.raises(TargetError, match="more than"):
        shell.run(["sh", "-c", "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done"])


@given(WORDS)
def test_a_line_is_one_line_of_words(word: str) -> None:
    assert command_line(["echo", word]).startswith("echo ")


class _Lying:
    """A link whose device goes away, and which calls that an end, as adb does."""

    name = "liar"

    def open(self, command: str) -> Channel:
        return _Ended()


class _Ended:
    def send(self, data: bytes) -> None:
        pass

    def end_input(self) -> None:
        pass

    def receive(self, timeout_s: float) -> Chunk | None:
        return None

    def close(self) -> None:
        pass


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
