"""Signals: raised at once, held where told, dropped while the first one is being dealt with."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from meltrepro import interrupts
from meltrepro.errors import Interrupted, StoreError


@pytest.fixture(autouse=True)
def handlers_of_the_test_runner() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:  # another test's last words may have left a handler that steps aside by itself
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_block(number: int) -> None:
    with pytest.raises(Interrupted) as caught, interrupts.raising():
        interrupt(number)
        raise AssertionError("never reached")
    assert caught.value.exit_code == 130


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts.raising():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_an_impatient_signal_does_not_break_the_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted), interrupts.raising():
        interrupt()
    interrupt()
    monkeypatch.setattr(interrupts, "PATIENCE_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert signal.getsignal(signal.SIGINT) is before


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


def test_an_interrupt_that_a_library_swallowed_is_one_all_the_same() -> None:
    with pytest.raises(Interrupted), interrupts.raising():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("no match") from None


@pytest.mark.parametrize("error", [ValueError("of its own"), StoreError("disk full")])
def test_other_errors_are_no_interrupts(error: Exception) -> None:
    with pytest.raises(type(error)), interrupts.raising():
        raise error


def test_what_breaks_while_things_are_put_in_order_is_told() -> None:
    with pytest.raises(StoreError), interrupts.raising():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise StoreError("disk full")
