"""The services `shell` and `exec`: a command with its streams told apart (`shell,v2`) or as one (the old way)."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

from tests.support.adbd.machine import Machine
from tests.support.adbd.transport import Stream, StreamClosed

_STDIN, _STDOUT, _STDERR, _EXIT, _END_INPUT, _WINDOW_SIZE = range(6)
_HEADER = struct.Struct("<BI")
_MOST = 1 << 20
_PIECE = 32 << 10


def serve_shell(stream: Stream, machine: Machine) -> None:
    """Run the command line of `shell[,v2][,raw][,TERM=x]:COMMAND` to its end, or until the server lets go of it."""
    kind, _, command = stream.service.partition(":")
    apart = "v2" in kind.split(",")
    process = machine.spawn(command, stderr=subprocess.PIPE if apart else subprocess.STDOUT)
    stream.opened()
    assert process.stdin and process.stdout
    listener = threading.Thread(target=_listen, args=(stream, process, process.stdin, apart), daemon=True)
    listener.start()
    pumps = [threading.Thread(target=_pump, args=(stream, process.stdout, _STDOUT if apart else None), daemon=True)]
    if process.stderr is not None:
        pumps.append(threading.Thread(target=_pump, args=(stream, process.stderr, _STDERR), daemon=True))
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join()
    status = process.wait()
    with contextlib.suppress(StreamClosed):
        if apart:
            stream.write(_frame(_EXIT, bytes([status if status >= 0 else 128 - status])))
    stream.close()
    listener.join()


def _frame(kind: int, data: bytes) -> bytes:
    return _HEADER.pack(kind, len(data)) + data


def _pump(stream: Stream, source: IO[bytes], kind: int | None) -> None:
    """Carry what a command writes, until it ends or nobody wants it any more."""
    with source, contextlib.suppress(StreamClosed, OSError):
        while data := source.read(_PIECE):
            stream.write(data if kind is None else _frame(kind, data))


def _listen(stream: Stream, process: subprocess.Popen[bytes], sink: IO[bytes], framed: bool) -> None:
    """Give a command its input; where the server lets go of it, its shell is hung up on, its children are not."""
    with sink:
        buffer = bytearray()
        while data := stream.read():
            buffer += data
            if not framed:
                _give(sink, bytes(buffer))
                buffer.clear()
                continue
            while (found := _take(buffer)) is not None:
                kind, piece = found
                if kind == _STDIN:
                    _give(sink, piece)
                elif kind == _END_INPUT:
                    sink.close()
                elif kind != _WINDOW_SIZE:
                    stream.close()
    if process.poll() is None:
        _hang_up(process)


def _take(buffer: bytearray) -> tuple[int, bytes] | None:
    if len(buffer) < _HEADER.size:
        return None
    kind, size = _HEADER.unpack_from(buffer)
    if size > _MOST:
        buffer.clear()
        return 0xFF, b""
    if len(buffer) < _HEADER.size + size:
        return None
    data = bytes(buffer[_HEADER.size : _HEADER.size + size])
    del buffer[: _HEADER.size + size]
    return kind, data


def _give(sink: IO[bytes], data: bytes) -> None:
    """Write it all; what a command does not want any more is lost, as in any pipe."""
    view = memoryview(data)
    with contextlib.suppress(OSError, ValueError):
        while view:
            view = view[sink.write(view) :]


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    """Tell the shell, which is the only child of the program that enters the machine for it; its start is waited for."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGHUP)
                return
        time.sleep(0.001)
