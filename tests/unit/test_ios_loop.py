"""Calls of an asynchronous library that end by their deadline, whatever the library does about it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from meltrepro.targets.ios.loop import Loop, Silent


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.close()


async def answer(value: int, after_s: float = 0) -> int:
    await asyncio.sleep(after_s)
    return value


def test_an_answer(loop: Loop) -> None:
    assert loop.run(answer(7), 5) == 7


def test_what_is_raised_comes_out(loop: Loop) -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        loop.run(fail(), 5)


def test_a_deadline_of_the_action_itself_is_not_ours(loop: Loop) -> None:
    async def impatient() -> None:
        await asyncio.wait_for(asyncio.sleep(60), 0.05)

    with pytest.raises(TimeoutError):
        loop.run(impatient(), 5)


def test_silence_ends_and_what_is_waited_for_is_closed(loop: Loop) -> None:
    closed = threading.Event()
    began = time.monotonic()
    with pytest.raises(Silent):
        loop.run(answer(7, after_s=60), 0.1, closed.set)
    assert time.monotonic() - began < 2
    assert closed.wait(2)


def test_an_action_that_answers_its_cancellation_by_another_question(loop: Loop) -> None:
    """As a file that is closed politely: the phone is asked, and does not answer."""
    stubborn = asyncio.Event()

    async def ask() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await stubborn.wait()

    began = time.monotonic()
    with pytest.raises(Silent):
        loop.run(ask(), 0.1, stubborn.set)
    assert time.monotonic() - began < 2
    assert loop.run(answer(7), 5) == 7, "others go on"


def test_an_interrupt_gives_the_action_up(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled, closed = threading.Event(), threading.Event()

    async def ask() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    real = asyncio.run_coroutine_threadsafe

    def interrupted(*arguments: Any) -> Any:
        future: Any = real(*arguments)

        def result(timeout: float | None = None) -> None:
            time.sleep(0.05)
            raise KeyboardInterrupt

        monkeypatch.setattr(future, "result", result)
        return future

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
        loop.run(ask(), 60, closed.set)
    assert cancelled.wait(2)
    assert closed.wait(2)


def test_what_still_waits_is_cancelled_at_the_end() -> None:
    found, ended = Loop(), threading.Event()

    async def read_for_ever() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def begin() -> asyncio.Task[None]:
        return asyncio.create_task(read_for_ever())

    task = found.run(begin(), 5)
    found.close()
    assert ended.is_set()
    assert task.cancelled()
