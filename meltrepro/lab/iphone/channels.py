"""One host's conversation with developer services: channels that it opens, calls and their answers."""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Any

from meltrepro.lab.iphone import dtx
from meltrepro.lab.iphone.archive import Error
from meltrepro.lab.iphone.state import State
from meltrepro.lab.iphone.stream import Stream, StreamEnded


class ServiceConnection:
    """One conversation with one host, with any number of channels."""

    def __init__(
        self, state: State, stream: Stream, services: Mapping[str, Callable[[ServiceConnection, int], ServiceChannel]]
    ) -> None:
        """`services` are what channels can be opened to, by name."""
        self.state = state
        self._services = services
        self._stream = stream
        # Whoever tells of an app's end must not wait for a host that does not listen.
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._numbers = itertools.count(1)
        self._channels: dict[int, ServiceChannel] = {}
        self.order = threading.RLock()
        """Held while a call is carried out and answered: nothing that it brings about is told before the answer."""

    def serve(self) -> None:
        """Answer until the host leaves; raises `StreamEnded`, `Malformed`."""
        parts = dtx.Assembly()
        sender = threading.Thread(target=self._send, name="instruments", daemon=True)
        sender.start()
        try:
            while True:
                fragment, more = dtx.read_fragment(self._stream.read(dtx.FRAGMENT.size))
                self._stream.read(more)
                message = parts.add(fragment, self._stream.read(fragment.body))
                if message is not None and message.turn % 2 == 0:
                    with self.order:
                        self._handle(message)
        finally:
            for channel in self._channels.values():
                channel.close()
            self._outbox.put(None)
            self._stream.abort()
            sender.join()

    def _send(self) -> None:
        try:
            while (data := self._outbox.get()) is not None:
                self._stream.send(data)
        except StreamEnded:
            self._stream.abort()

    def tell(self, channel: int, message: dtx.Message) -> None:
        """Say something of one's own accord on a channel that the host has opened."""
        with self.order:
            # The number of a channel is negative where the side that did not open it begins.
            told = dtx.Message(
                message.kind, -channel, message.value, message.arguments, next(self._numbers), asks=message.asks
            )
            self._outbox.put(dtx.write_message(told))

    def _handle(self, message: dtx.Message) -> None:
        answer: Any = None
        if message.kind is dtx.Kind.call:
            name, arguments = str(message.value), message.arguments
            try:
                if message.channel == 0:
                    answer = self._control(name, arguments)
                elif message.channel in self._channels:
                    answer = self._channels[message.channel].call(name, *arguments)
                else:
                    answer = Error("DTXMessage", 1, f"there is no channel {message.channel}")
            except (TypeError, ValueError) as error:
                answer = Error("DTXMessage", 1, f"{name} cannot be called so: {error}")
        if message.asks:
            self._outbox.put(dtx.write_message(message.answer(answer)))

    def _control(self, name: str, arguments: tuple[Any, ...]) -> Any:
        match name, arguments:
            case "_notifyOfPublishedCapabilities:", (dict(),):
                known = {"com.apple.private.DTXConnection": 1, "com.apple.private.DTXBlockCompression": 0}
                known |= dict.fromkeys(self._services, 1)
                self.tell(0, dtx.Message(dtx.Kind.call, 0, "_notifyOfPublishedCapabilities:", (known,)))
            case "_requestChannelWithCode:identifier:", (int(code), str(identifier)):
                make = self._services.get(identifier)
                if make is None:
                    return Error("DTXMessage", 1, f"there is no service {identifier}")
                self._channels[code] = make(self, code)
            case "_channelCanceled:", (int(code),):
                gone = self._channels.pop(code, None)
                if gone is not None:
                    gone.close()
            case _:
                return Error("DTXMessage", 1, f"Unable to invoke {name!r} - it does not respond to the selector")
        return None


class ServiceChannel(ABC):
    """One service that a host has opened."""

    def __init__(self, connection: ServiceConnection, code: int) -> None:
        self.connection = connection
        self.state = connection.state
        self.code = code

    def call(self, name: str, *arguments: Any) -> Any:
        """Carry out a call; returns what answers it, `None` for nothing."""
        method = self.methods().get(name)
        if method is None:
            return Error("DTXMessage", 1, f"Unable to invoke {name!r} - it does not respond to the selector")
        return method(*arguments)

    @abstractmethod
    def methods(self) -> dict[str, Callable[..., Any]]:
        """What may be called, by its name on the wire."""

    def close(self) -> None:  # noqa: B027
        """The host has left, or wants this no more."""
