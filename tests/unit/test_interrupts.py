"""Signals: raised at once, held where told, dropped while the first one is being dealt with."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from meltrepro import interrupts
from meltrepro.errors import Interrupted


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_block(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, interrupts.raising():
        interrupt(number)
        raise AssertionError("never reached")
    assert caught.value.exit_code == 130
    assert signal.getsignal(number) is before


def test_a_held_signal_waits_for_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(Interrupted), interrupts.raising():
        with interrupts.held():
            with interrupts.held():
                interrupt()
                done.append("inner")
            done.append("outer")
        done.append("never")
    assert done == ["inner", "outer"]


def test_a_second_signal_does_not_break_the_clean_up() -> None:
    done = []
    with pytest.raises(Interrupted), interrupts.raising():
        try:
            interrupt()
        finally:
            interrupt()
            with interrupts.held():
                interrupt()
            done.append("cleaned")
    assert done == ["cleaned"]


def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "PATIENCE_S", 0.0)
    with pytest.raises(Interrupted), interrupts.raising():
        try:
            interrupt()
        finally:
            with pytest.raises(KeyboardInterrupt):
                interrupt()


def test_an_error_of_the_block_passes_through() -> None:
    with pytest.raises(ValueError, match="mine"), interrupts.raising():
        raise ValueError("mine")


def test_other_threads_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with interrupts.raising():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
