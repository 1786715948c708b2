"""The bytes that SSH goes over: a TCP connection, or what a ProxyCommand carries."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.ssh.config import Route, shown

CONNECT_S = 15.0
_END_S = 2.0
"""How long a command may take to end once nobody listens to it."""
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


@dataclass
class Wire:
    """A connection, and the command that carries it."""

    socket: socket.socket
    command: subprocess.Popen[bytes] | None = None
    complaints: int = -1
    """A file that takes what the command complains of."""

    def said(self) -> str:
        """What the command complained of, in one line."""
        if self.command is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.command.wait(_END_S)  # it may still be about to say why it ends
        return shown(" ".join(os.fsdecode(os.pread(self.complaints, 1 << 16, 0)).split())[-300:])

    def close(self) -> None:
        """Let go of both; never raises."""
        self.socket.close()
        if self.command is not None:
            for number in (signal.SIGHUP, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.command.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.command.wait(_END_S)
                    break


def dial(route: Route, silence_s: float, ask_every_s: float, stack: contextlib.ExitStack) -> Wire:
    """A way to a host on which silence does not last; it goes with the stack. Raises `TargetLost` where there is none now."""
    if route.proxy:
        return _carried(route, stack)
    place = f"{route.address}:{route.port}"
    try:
        connection = _connected(route, float(route.option("connecttimeout") or CONNECT_S))
    except socket.gaierror as error:
        raise TargetLost(
            f"{route.name}: there is no host {route.address!r} now: {error.strerror}",
            hint="see its HostName in ~/.ssh/config, and whether it is on",
        ) from error
    except TimeoutError as error:
        raise TargetLost(
            f"{route.name}: {place} does not answer", hint="see whether the board is on and reachable"
        ) from error
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise TargetLost(
            f"{route.name}: cannot connect to {place}: {why.lower()}",
            hint="see whether the board is on, and whether sshd runs there",
        ) from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_USER_TIMEOUT", int(silence_s * 1000)),
        ("TCP_KEEPIDLE", max(1, int(ask_every_s))),
        ("TCP_KEEPINTVL", max(1, int(ask_every_s))),
        ("TCP_KEEPCNT", max(1, int(silence_s // ask_every_s))),
    ):
        if hasattr(socket, option):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    wire = Wire(connection)
    stack.callback(wire.close)
    return wire


def _connected(route: Route, timeout_s: float) -> socket.socket:
    """A TCP connection to the first of its addresses that takes one."""
    wanted = _FAMILIES.get(route.option("addressfamily") or "", socket.AF_UNSPEC)
    source, interface = route.option("bindaddress"), route.option("bindinterface")
    failed = OSError("it has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(route.address, route.port, wanted, socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout_s)
            if interface:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            if source:
                connection.bind(socket.getaddrinfo(source, 0, family, kind)[0][4])
            connection.connect(place)
        except OSError as error:
            connection.close()
            failed = error
        else:
            return connection
    raise failed


def _carried(route: Route, stack: contextlib.ExitStack) -> Wire:
    """What the host's ProxyCommand connects to; run as ssh runs it, by the user's shell."""
    ours, theirs = socket.socketpair()
    complaints, path = tempfile.mkstemp()
    stack.callback(os.close, complaints)
    Path(path).unlink()
    try:
        command = subprocess.Popen(
            [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {route.proxy}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=complaints,
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        raise TargetError(
            f"{route.name}: its ProxyCommand cannot be started: {error.strerror}", hint="see the variable SHELL"
        ) from error
    finally:
        theirs.close()
    wire = Wire(ours, command, complaints)
    stack.callback(wire.close)
    if route.proxy_passes:
        with contextlib.suppress(OSError):
            ours.settimeout(CONNECT_S)
            _, passed, *_ = socket.recv_fds(ours, 1, 1)
            if passed:
                ours.close()
                wire.socket = socket.socket(fileno=passed[0])
                return wire
        said = wire.said()
        raise TargetLost(f"{route.name}: its ProxyCommand hands over no connection{said and f': {said}'}")
    return wire
