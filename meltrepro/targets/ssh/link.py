"""Boards behind SSH: one connection a target, over which any number of commands run, made anew whenever it is lost.

paramiko tells neither a lost link from a command that was killed, nor a silent one from a slow one; what makes up for it
is here: an exit status that never comes is a loss, and a connection that answers no more is closed (docs/devices/jetson.md).
"""

from __future__ import annotations

import contextlib
import logging
import select
import shlex
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.remote.link import PIECE, Chunk
from meltrepro.targets.ssh import dial
from meltrepro.targets.ssh.access import prefer, verify
from meltrepro.targets.ssh.config import Route

if TYPE_CHECKING:
    from paramiko import Channel, Transport

_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""Preferred: half as fast again as the default with the processors' own instructions."""
_ALGORITHMS = {
    "ciphers": "Ciphers",
    "digests": "MACs",
    "kex": "KexAlgorithms",
    "key_types": "HostKeyAlgorithms",
}
"""What paramiko calls that which options of ssh restrict."""
_OPEN_S = 20.0
_GREET_S = 30.0
_SEND_S = 30.0
"""How long a command may not take its input."""
_ASK_EVERY_S, _SILENCE_S = 5.0, 15.0
"""How often a sign of life is asked for, and how long none may come."""
_PAUSES_S = (0.1, 0.3, 0.0)
_SETTLE_S = 0.3
"""How long a server that goes down may take from closing a channel to closing the connection."""
_HELLO = "meltrepro says hello"
_PROHIBITED = 1
"""Why a channel was not opened (RFC 4254, 5.1): the server does not want to."""
_LINGER_S = 2.0
"""How long output is awaited after a command has ended: something that it left behind may hold its streams."""
_LOOK_S = 0.5
"""An exit status that comes while streams stay open wakes nobody."""
_PIECE = 64 << 10


class SshLink:
    """A link to one host; connects when it is first needed."""

    def __init__(self, name: str, find: Callable[[], Route]) -> None:
        """`find` is asked before each connection: a lab that is started again has other ports."""
        self._name = name
        self._find = find
        self._guard = threading.Lock()
        self._connection: Connection | None = None

    @property
    def name(self) -> str:
        return self._name

    def open(self, command: str) -> SshChannel:
        """Start a command under `/bin/sh`, whatever the login shell is; sshd makes it lead a group of its own."""
        return self._connected().start(command)

    def address(self) -> str:
        """Where the host is; raises what looking that up raises."""
        return self._find().address

    def close(self) -> None:
        """Let go of the connection; the next command makes another."""
        with self._guard:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _connected(self) -> Connection:
        with self._guard:
            if self._connection is None or not self._connection.alive:
                self._connection = Connection(self._find())
            return self._connection


class Connection:
    """A connection that is up, through as many hosts as it takes; closed when it gives no sign of life."""

    def __init__(self, route: Route) -> None:
        """Connect, verify and log in; raises `TargetLost` or `TargetError`."""
        logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what it has to say is in our errors
        self._route = route
        self._transports: list[Transport] = []
        self._wires = contextlib.ExitStack()
        self._over = threading.Event()
        self._heard = time.monotonic()
        try:
            self._transport = self._reach(route)
            self._greet()
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._watch, name=f"{route.name}", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether commands can be started, as far as anybody knows."""
        return not self._over.is_set() and self._transport.is_active()

    def heard(self) -> None:
        """Something came, or went."""
        self._heard = time.monotonic()

    def start(self, command: str) -> SshChannel:
        """Start a command; raises `TargetLost` where the link breaks or the server takes no more."""
        from paramiko import SSHException

        try:
            channel = self._open_session()
        except (SSHException, EOFError, OSError) as error:
            self.close()
            raise TargetLost(f"{self._route.name}: the SSH link broke: {error}") from error
        try:
            channel.settimeout(_SEND_S)
            channel.exec_command(f"exec /bin/sh -c {shlex.quote(command)}")
        except (SSHException, EOFError, OSError) as error:
            channel.close()
            if not self._over.wait(_SETTLE_S) and self._transport.is_active():
                raise TargetError(f"{self._route.name}: runs no commands for {self._route.user}: {error}") from error
            raise TargetLost(f"{self._route.name}: the SSH link broke: {error}") from error
        return SshChannel(channel, self._route.name, self.heard, lambda: self.alive)

    def _open_session(self) -> Channel:
        """A new session; a server may count one that just ended for a moment more."""
        from paramiko import ChannelException

        for pause_s in _PAUSES_S:
            try:
                return self._transport.open_session(timeout=_OPEN_S)
            except ChannelException as error:
                refused = error
                time.sleep(pause_s)
        raise TargetLost(
            f"{self._route.name}: takes no more sessions now: {refused.text}", hint="see MaxSessions in its sshd_config"
        ) from refused

    def close(self) -> None:
        """End it with everything that still waits on it; never raises."""
        self._over.set()
        for transport in reversed(self._transports):
            with contextlib.suppress(Exception):
                transport.close()
        self._wires.close()

    def _reach(self, route: Route) -> Transport:
        from paramiko import SSHException, Transport
        from paramiko.ssh_exception import IncompatiblePeer

        from meltrepro.targets.ssh.keys import login

        wire = None
        if route.jump:
            connection: Channel | socket.socket = self._through(self._reach(route.jump), route)
        else:
            wire = dial.dial(route, _SILENCE_S, _ASK_EVERY_S, self._wires)
            connection = wire.socket
        try:
            transport = Transport(connection)
            self._transports.append(transport)
            _choose(transport, route)
            transport.banner_timeout = transport.handshake_timeout = dial.CONNECT_S
            transport.start_client(timeout=3 * dial.CONNECT_S)  # beyond what it waits for itself, which tells more
            key = transport.get_remote_server_key()
        except IncompatiblePeer as error:
            raise TargetError(f"{route.name}: its SSH is too old or too new: {error}") from error
        except (SSHException, EOFError, OSError) as error:
            if route.proxy and wire:
                raise TargetLost(
                    f"{route.name}: its ProxyCommand leads to no SSH: {wire.said() or error}",
                    hint=f"see whether it works by hand: ssh {shlex.quote(route.name)}",
                ) from error
            raise TargetLost(
                f"{route.name}: {route.address}:{route.port} answers, but not as SSH does: {error}",
                hint="see whether it is still starting, and whether sshd listens at this port",
            ) from error
        verify(route, key)
        login(transport, route)
        return transport

    def _through(self, before: Transport, route: Route) -> Channel:
        """A way on from a host that is reached already."""
        from paramiko import ChannelException, SSHException

        try:
            return before.open_channel(
                "direct-tcpip", (route.address, route.port), ("127.0.0.1", 0), timeout=dial.CONNECT_S
            )
        except ChannelException as error:
            kind = TargetError if error.code == _PROHIBITED else TargetLost
            assert route.jump is not None
            raise kind(f"{route.jump.name} does not lead on to {route.address}:{route.port}: {error.text}") from error
        except (SSHException, EOFError, OSError) as error:
            raise TargetLost(f"{route.name}: the link broke on the way to it: {error}") from error

    def _greet(self) -> None:
        """See to it that commands run, and that nothing but them is heard."""
        said = b""
        channel = self.start(f"echo {shlex.quote(_HELLO)}")
        with contextlib.closing(channel):
            try:
                while (chunk := channel.receive(_GREET_S)) is not None:
                    said += chunk.data if chunk.stream == "out" else b""
            except TimeoutError:
                raise TargetLost(f"{self._route.name}: nothing was heard for {_GREET_S:g} s after the login") from None
        if said == _HELLO.encode() + b"\n":
            return
        text = said.decode("utf-8", errors="replace").strip()
        if _HELLO in text:
            raise TargetError(
                f"{self._route.name}: its login files write on their own: {text.replace(_HELLO, '').strip()[:120]!r}",
                hint="let ~/.bashrc and its like be silent where no terminal is: [ -t 0 ] || return",
            )
        raise TargetError(f"{self._route.name}: runs no commands for {self._route.user}; it says {text[:120]!r}")

    def _watch(self) -> None:
        """Ask for answers that cost nothing; where none come, and nothing else either, the link is gone."""
        while not self._over.wait(_ASK_EVERY_S):
            giving_up = threading.Thread(target=self._give_up, args=(answered := threading.Event(),), daemon=True)
            giving_up.start()
            with contextlib.suppress(Exception):
                self._transport.global_request("keepalive@openssh.com", wait=True)
            answered.set()
            if not self._transport.is_active():
                self.close()
                return

    def _give_up(self, answered: threading.Event) -> None:
        asked = time.monotonic()
        while not answered.wait(max(0.1, max(asked, self._heard) + _SILENCE_S - time.monotonic())):
            if time.monotonic() - max(asked, self._heard) >= _SILENCE_S:
                self.close()
                return


def _choose(transport: Transport, route: Route) -> None:
    """Offer the algorithms that ssh's configuration allows; raises `TargetError` where none of them is known here."""
    options = transport.get_security_options()
    options.ciphers = (*_CIPHERS, *(name for name in options.ciphers if name not in _CIPHERS))
    options.key_types = prefer(options.key_types, route)
    for kind, option in _ALGORITHMS.items():
        known, allowed = getattr(options, kind), route.option(option.lower())
        chosen = tuple(name for name in known if allowed is None or name in allowed.split(","))
        if not chosen:
            raise TargetError(
                f"{route.name}: {option} in the configuration of ssh allows nothing that is offered here",
                hint=f"allow one of: {', '.join(known)}",
            )
        setattr(options, kind, chosen)


class SshChannel:
    """A command that runs over a connection which others share; paramiko's own -1 for an exit status is no answer."""

    def __init__(self, channel: Channel, name: str, heard: Callable[[], None], alive: Callable[[], bool]) -> None:
        """`heard` is told of every sign of life; `alive` says whether the connection is up as far as anybody knows."""
        self._channel = channel
        self._name = name
        self._heard = heard
        self._alive = alive
        self._quiet_since: float | None = None

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            for start in range(0, len(view), PIECE):
                self._channel.sendall(bytes(view[start : start + PIECE]))
                self._heard()
        except (EOFError, OSError) as error:
            raise self._lost(f"does not take what it is sent: {error}") from error

    def end_input(self) -> None:
        try:
            self._channel.shutdown_write()
        except (EOFError, OSError) as error:
            raise self._lost(str(error)) from error

    def receive(self, timeout_s: float) -> Chunk | None:
        until = time.monotonic() + timeout_s
        while True:
            ended = self._ended  # before looking: data comes before the end
            chunk = self._ready()
            if chunk is not None:
                return chunk
            exited = self._channel.exit_status_ready()
            if exited and (ended or self._lingered()):
                self._require_status()
                return None
            if (left_s := until - time.monotonic()) > 0:  # asked between any two pieces that are sent
                self._wait(left_s, ended, exited)
            if time.monotonic() >= until and not self._anything():
                raise TimeoutError

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._channel.close()

    def _ready(self) -> Chunk | None:
        if self._channel.recv_ready():
            chunk = Chunk("out", self._channel.recv(_PIECE))
        elif self._channel.recv_stderr_ready():
            chunk = Chunk("err", self._channel.recv_stderr(_PIECE))
        else:
            return None
        self._quiet_since = None
        self._heard()
        return chunk

    @property
    def _ended(self) -> bool:
        return bool(self._channel.eof_received or self._channel.closed)

    def _anything(self) -> bool:
        over = self._ended and self._channel.exit_status_ready()
        return over or self._channel.recv_ready() or self._channel.recv_stderr_ready()

    def _wait(self, timeout_s: float, ended: bool, exited: bool) -> None:
        """Until something happens: more output, its end, or after that the exit status."""
        if ended:
            self._channel.status_event.wait(timeout_s)
        else:
            select.select([self._channel], [], [], min(timeout_s, _LINGER_S) if exited else min(timeout_s, _LOOK_S))

    def _lingered(self) -> bool:
        """Whether nothing has come for a while since the command ended, though its streams are open."""
        now = time.monotonic()
        self._quiet_since = now if self._quiet_since is None else self._quiet_since
        return now - self._quiet_since >= _LINGER_S

    def _require_status(self) -> None:
        """Raise `TargetLost` where the end came without an exit status."""
        if self._channel.recv_exit_status() < 0:
            raise self._lost("a command was killed there" if self._alive() else "the SSH link broke")

    def _lost(self, why: str) -> TargetLost:
        return TargetLost(f"{self._name}: {why}", hint="see whether the board is on and reachable")
