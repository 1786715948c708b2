"""One event loop in a thread of its own: asynchronous libraries behind synchronous calls that keep their deadlines."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")
_LAST_S = 1.0
"""How long what is cancelled when the process ends may take."""


class Silent(Exception):
    """An action did not end in time; whatever it is up to now, nobody waits for it."""


class Loop:
    """An event loop that runs as long as the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="iphones", daemon=True)
        self._thread.start()

    def run(self, action: Coroutine[Any, Any, T], limit_s: float, abandon: Callable[[], None] | None = None) -> T:
        """The result of an action, or what it raises; raises `Silent` after `limit_s` however the action behaves.

        An action that is given up is cancelled, and `abandon` is called in the loop's thread: it closes what the action
        waits for, because code that answers its cancellation by another question to the device would wait on.
        """
        assert threading.current_thread() is not self._thread, "the loop cannot wait for itself"
        future = asyncio.run_coroutine_threadsafe(action, self._loop)
        try:
            return future.result(limit_s)
        except TimeoutError:
            if future.done():  # its own time-out, not ours
                return future.result()
            raise Silent from None
        finally:
            if not future.done():
                self._give_up(future, abandon)

    def call(self, action: Callable[[], None]) -> None:
        """Have the loop's thread do something soon; nobody waits for it."""
        self._loop.call_soon_threadsafe(action)

    def close(self) -> None:
        """Cancel what still waits, and end the loop; what does not let itself be cancelled is left."""
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(2 * _LAST_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        if not self._loop.is_running():
            self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_S)

    def _give_up(self, future: Future[Any], abandon: Callable[[], None] | None) -> None:
        if abandon is not None:
            self._loop.call_soon_threadsafe(abandon)
        future.cancel()


@lru_cache
def shared() -> Loop:
    """The loop of this process: the library's connections belong to the loop that they were made in."""
    loop = Loop()
    atexit.register(loop.close)  # what is still read from phones would else be complained of on the terminal
    return loop
