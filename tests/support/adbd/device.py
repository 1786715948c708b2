"""The device as tests have it: a loopback port that speaks adb, a machine behind it, and faults to ask for."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from pathlib import Path

from tests.support.adbd.faults import Fault, Gate
from tests.support.adbd.machine import Machine
from tests.support.adbd.shell import serve_shell
from tests.support.adbd.sync import serve_sync
from tests.support.adbd.transport import Stream, Transport


class Adbd:
    """One device; its folder holds what it stores, and goes with `erase`."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "broken",
        storage: str = "disk",
        authorised: bool = True,
        properties: dict[str, str] | None = None,
    ) -> None:
        """`storage` is a size such as `2m` for a device that is soon full. One that is not `authorised` asks whoever
        holds it whether a server may use it, and nobody ever says yes."""
        known = {
            "ro.serialno": f"MELT{name.upper()}",
            "ro.product.manufacturer": "meltrepro",
            "ro.product.model": "Fault Injector",
            "ro.product.name": name,
            "ro.product.device": name,
            "ro.build.version.release": "14",
            "ro.build.version.sdk": "34",
            "ro.meltrepro.virtual": "1",
            "sys.boot_completed": "1",
        }
        self.machine = Machine(folder, {**known, **(properties or {})}, storage)
        self.authorised = authorised
        self.gate = Gate()
        self.port = 0
        self._listener: socket.socket | None = None
        self._transports: set[Transport] = set()

    @property
    def address(self) -> str:
        """What adb calls it while it is on."""
        return f"127.0.0.1:{self.port}"

    @property
    def root(self) -> str:
        """A folder of it for what trials need."""
        return str(self.machine.data / "meltrepro")

    def start(self, port: int | None = None) -> None:
        """Switch it on, at a port or a free one; raises `EngineError`. It dies with the thread that calls this."""
        self.machine.start()
        self.listen(port)

    def stop(self) -> None:
        """Switch it off at once, as if its battery were taken out."""
        self.vanish()
        self.machine.stop()

    def reboot(self) -> None:
        """Off and on again: another boot id; what it stored stays where it stores on disk."""
        self.stop()
        self.start(self.port)

    def listen(self, port: int | None = None) -> None:
        """Be there for servers, at a port or a free one."""
        self._listener = socket.create_server(("127.0.0.1", port or 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), name="adbd", daemon=True).start()

    def vanish(self) -> None:
        """As if it were unplugged: what runs on it runs on. It is back with `listen`."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for transport in list(self._transports):
            transport.cut()

    def erase(self) -> None:
        """Switch it off and remove everything that it stored."""
        self.stop()
        shutil.rmtree(self.machine.folder, ignore_errors=True)

    def arm(self, *faults: Fault) -> None:
        """Let these faults happen from now on, and no others."""
        self.gate.arm(*faults)

    def processes(self) -> list[int]:
        return self.machine.processes()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = Transport(
                connection, self.gate, self.machine.properties, self._serve, authorised=self.authorised
            )
            self._transports.add(transport)
            threading.Thread(target=self._run, args=(transport,), name="adbd connection", daemon=True).start()

    def _run(self, transport: Transport) -> None:
        try:
            transport.run()
        finally:
            self._transports.discard(transport)

    def _serve(self, stream: Stream) -> None:
        kind = stream.service.partition(":")[0].partition(",")[0]
        if kind in ("shell", "exec"):
            serve_shell(stream, self.machine)
        elif kind == "sync":
            serve_sync(stream, self.machine)
        else:
            raise LookupError(kind)
