"""Commands on a device: argument vectors in; exit status and output, or a typed error, out.

No link is trusted to tell how a command ended: adb says 0 where a device went away in the middle. Each command writes a
marker of its own when it begins and when it ends, and without the second one it has not ended.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from meltrepro.errors import TargetError, TargetLost
from meltrepro.interrupts import held
from meltrepro.targets.remote.link import PIECE, Channel, Chunk, Link

_FRAME = 'n=$1; shift; echo "$n $$" >&2; {body}; s=$?; echo "$n $s" >&2'
"""Around every command; `set --` has put a nonce and the command's arguments into its parameters."""
_ARGV = '"$@"'
_LONGEST_COMMAND = 30_000
"""Bytes of a command line; adb's server takes 65,535, old devices a half of that."""
_MOST_KEPT = 4 << 20
"""Bytes of output that are kept; a device that says more than this to a question is not answering it."""
_CLEANUP_S = 5.0
_NAME_S = 1.0
"""A command that is to be killed has so long to say which process it is."""


@dataclass(frozen=True)
class Reply:
    """How a command ended."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """The output as text, without white space at its ends."""
        return self.out.decode("utf-8", errors="replace").strip()


def command_line(argv: Sequence[str]) -> str:
    """Quote an argument vector for a POSIX shell; the only place where words become a command line.

    Raises `TargetError` for what no argument can hold.
    """
    for word in argv:
        if "\0" in word:
            raise TargetError(f"an argument for the device holds a NUL character: {word[:80]!r}")
    line = " ".join(shlex.quote(word) for word in argv)
    try:
        size = len(line.encode())
    except UnicodeEncodeError as error:
        raise TargetError(f"an argument for the device is no text: {line[:80]!r}") from error
    if size > _LONGEST_COMMAND:
        raise TargetError(f"a command for the device has {size} bytes; at most {_LONGEST_COMMAND} can be sent")
    return line


class Shell:
    """Runs commands over a link; stateless, so that it outlives every loss of it."""

    def __init__(self, link: Link, *, silence_s: float = 30.0) -> None:
        """`silence_s` is how long a command may say nothing where its caller does not know better."""
        self.link = link
        self._silence_s = silence_s

    def run(
        self,
        argv: Sequence[str],
        *,
        source: Iterable[bytes] = (),
        sink: Callable[[bytes], object] | None = None,
        silence_s: float | None = None,
    ) -> Reply:
        """Run a command to its end, with `source` as its input; its output goes to `sink`, or into the reply.

        Raises `TargetLost` where the link breaks or nothing is heard for `silence_s`; the command and what it started are
        then killed as far as the device can be reached. Raises `TargetError` where the device refuses.
        """
        with contextlib.closing(self.open(argv)) as running:
            return running.finish(source, sink, silence_s or self._silence_s)

    def script(
        self, script: str, *arguments: str, source: Iterable[bytes] = (), silence_s: float | None = None
    ) -> Reply:
        """Run a POSIX shell script, which never is anything but a constant of ours, with arguments that may be anything.

        It runs in a subshell of the device's shell: a new process image takes a slow device many times as long.
        """
        with contextlib.closing(self._start(f"( {script} )", arguments)) as running:
            return running.finish(source, None, silence_s or self._silence_s)

    def open(self, argv: Sequence[str]) -> Running:
        """Start a command and leave it running; raises as `run` does."""
        return self._start(_ARGV, argv)

    def _start(self, body: str, arguments: Sequence[str]) -> Running:
        nonce = secrets.token_hex(8)
        channel = self.link.open(f"{command_line(['set', '--', nonce, *arguments])}; {_FRAME.format(body=body)}")
        return Running(self, channel, nonce)

    def expect(self, reply: Reply, what: str) -> Reply:
        """The reply, where the command succeeded; else raises `TargetError` with what it said."""
        if reply.status == 0:
            return reply
        said = reply.err.strip().splitlines()[-1:] or [f"exit status {reply.status}"]
        raise TargetError(f"{self.link.name}: cannot {what}: {said[0][:300]}")


def _small(source: Iterable[bytes]) -> Iterator[bytes]:
    """In pieces that fit into the buffers of a link, so that a command which answers meanwhile is heard in time."""
    for data in source:
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]


class Running:
    """A command that was started and not yet heard to the end."""

    def __init__(self, shell: Shell, channel: Channel, nonce: str) -> None:
        self._shell = shell
        self._channel = channel
        self._marker = re.compile(nonce.encode() + rb" (\d+)\n")
        self._err = bytearray()
        self._group: int | None = None
        self._over = False

    def send(self, data: bytes) -> None:
        """Write to the command's input."""
        self._channel.send(data)

    def receive(self, silence_s: float) -> bytes:
        """The next piece of its output; raises `TargetLost` where it has ended or nothing comes."""
        while True:
            chunk = self._next(silence_s)
            if chunk is None:
                raise TargetLost(f"{self._shell.link.name}: a command ended early: {self._said()}")
            if chunk.stream == "out":
                return chunk.data
            self._heard(chunk)

    def finish(
        self, source: Iterable[bytes] = (), sink: Callable[[bytes], object] | None = None, silence_s: float = 30.0
    ) -> Reply:
        """Feed it, hear it to the end; as `Shell.run`."""
        out = bytearray()
        take = sink or out.extend
        try:
            self._feed(source, take)
            while (chunk := self._next(silence_s)) is not None:
                if chunk.stream == "out":
                    take(chunk.data)
                else:
                    self._heard(chunk)
                if len(out) > _MOST_KEPT:
                    raise TargetError(f"{self._shell.link.name}: an answer has more than {_MOST_KEPT} bytes")
        except BaseException:
            self._kill()
            raise
        self._over = True
        marks = list(self._marker.finditer(self._err))
        if len(marks) != 2 or marks[1].end() != len(self._err):
            raise TargetLost(f"{self._shell.link.name}: went away in the middle of a command: {self._said()}")
        said = bytes(self._err[marks[0].end() : marks[1].start()])
        return Reply(int(marks[1].group(1)), bytes(out), said.decode("utf-8", errors="replace"))

    def close(self) -> None:
        """Let go of it; what still runs is killed as far as the device can be reached."""
        if not self._over:
            self._kill()
        self._channel.close()

    def _feed(self, source: Iterable[bytes], take: Callable[[bytes], object]) -> None:
        """Send everything, as long as the command listens: one that gave up says why, and is then heard to its end."""
        for data in _small(source):
            with contextlib.suppress(TimeoutError):
                while (chunk := self._channel.receive(0)) is not None:
                    if chunk.stream == "out":
                        take(chunk.data)
                    else:
                        self._heard(chunk)
                return
            if len(list(self._marker.finditer(self._err))) > 1:
                return
            try:
                self._channel.send(data)
            except TargetLost:
                return  # what is still to be heard tells whether the command gave up or the link did
        self._channel.end_input()

    def _next(self, silence_s: float) -> Chunk | None:
        try:
            return self._channel.receive(silence_s)
        except TimeoutError:
            raise TargetLost(
                f"{self._shell.link.name}: nothing was heard for {round(silence_s, 1):g} s",
                hint="see whether the device is awake and connected, and by doctor whether this machine is busy",
            ) from None

    def _heard(self, chunk: Chunk) -> None:
        self._err += chunk.data
        if self._group is None and (found := self._marker.search(self._err)):
            self._group = int(found.group(1))
        if len(self._err) > _MOST_KEPT:
            raise TargetError(f"{self._shell.link.name}: complained with more than {_MOST_KEPT} bytes")

    def _said(self) -> str:
        text = self._marker.sub(b"", self._err).decode("utf-8", errors="replace").strip()
        return text[-200:] or "it said nothing"

    def _kill(self) -> None:
        """Kill the command's process group: closing a link ends the shell alone, never its children."""
        self._over = True
        with contextlib.suppress(TargetError, TimeoutError):
            while self._group is None and (chunk := self._channel.receive(_NAME_S)) is not None:
                if chunk.stream == "err":
                    self._heard(chunk)
        self._channel.close()
        if self._group is None or self._group <= 1:
            return
        with held(), contextlib.suppress(TargetError):
            channel = self._shell.link.open("exec " + command_line(["kill", "-9", "--", f"-{self._group}"]))
            with contextlib.closing(channel), contextlib.suppress(TimeoutError):
                until = time.monotonic() + _CLEANUP_S
                while time.monotonic() < until and channel.receive(_CLEANUP_S) is not None:
                    pass
