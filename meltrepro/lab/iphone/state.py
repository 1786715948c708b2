"""What a virtual iPhone is and has, for its services to share.

device.key      its private key
pairings.json   the hosts that it trusts
host/           pair records, which usbmuxd keeps on the host's side
media/          what every trusted host may see
apps/           what is installed
crashes/        crash reports
truth.csv       the power that it drew
meter.csv       the energy, as a meter between battery and phone would write it down
thermal         how hot it is, as its apps are told: 0 (nominal) to 3 (critical)
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from meltrepro.atomic import write_bytes
from meltrepro.lab.iphone import identity as identities
from meltrepro.lab.iphone.apps import Apps
from meltrepro.lab.iphone.processes import Processes
from meltrepro.lab.iphone.stream import Mishaps
from meltrepro.lab.power import Power


@dataclass(frozen=True)
class Host:
    id: str
    device_certificate: str
    host_certificates: str


class State:
    def __init__(self, folder: Path, name: str, power: Power, programs: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        for each in ("media", "crashes", "host"):
            (folder / each).mkdir(parents=True, exist_ok=True)
        self.identity = identities.load(folder, name, programs)
        self.power = power
        self.mishaps = Mishaps()
        self.apps = Apps(folder / "apps")
        self.processes = Processes(folder, power, lambda: self.mishaps.now)
        self.image = True
        """Whether the image with the developer services is mounted."""
        self._guard = threading.Lock()

    @property
    def media(self) -> Path:
        return self.folder / "media"

    @property
    def crashes(self) -> Path:
        return self.folder / "crashes"

    # -- trust ------------------------------------------------------------------------------------------------------

    def hosts(self) -> dict[str, Host]:
        try:
            known = json.loads((self.folder / "pairings.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return {entry["id"]: Host(**entry) for entry in known}

    def trust(self, host: Host) -> None:
        """Trust a computer from now on."""
        with self._guard:
            self._write_hosts({**self.hosts(), host.id: host})

    def distrust(self, host_id: str) -> bool:
        """Trust a computer no longer; returns whether it was trusted."""
        with self._guard:
            known = self.hosts()
            found = known.pop(host_id, None)
            self._write_hosts(known)
        return found is not None

    def _write_hosts(self, hosts: dict[str, Host]) -> None:
        text = json.dumps([asdict(host) for host in hosts.values()])
        write_bytes(self.folder / "pairings.json", text.encode(), durable=False)

    def tls(self, host: Host) -> ssl.SSLContext:
        """What is spoken with a computer that it trusts."""
        return identities.tls(self.identity, host.device_certificate, host.host_certificates)
