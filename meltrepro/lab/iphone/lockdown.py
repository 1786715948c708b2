"""lockdownd: tells what the phone is, pairs with hosts, and starts services for those that it trusts."""

from __future__ import annotations

import itertools
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from meltrepro.lab.iphone import identity as identities
from meltrepro.lab.iphone.apps import size_of
from meltrepro.lab.iphone.faults import PairingAnswer
from meltrepro.lab.iphone.frames import Malformed
from meltrepro.lab.iphone.state import Host, State
from meltrepro.lab.iphone.stream import Stream

PORT = 62078
DEVELOPER = frozenset({"com.apple.instruments.remoteserver.DVTSecureSocketProxy"})
"""Services that the developer image brings."""
_PORTS = range(49152, 0x10000)
_TYPE = "com.apple.mobile.lockdown"
Service = Callable[[State, Stream], None]


class Failure(Exception):
    """A request that failed; its text is lockdownd's name for the reason."""


@dataclass(frozen=True)
class Started:
    name: str
    serve: Service
    host: Host


class Doors:
    """The ports behind which services wait."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._numbers = itertools.cycle(_PORTS)
        self._waiting: dict[int, Started] = {}

    def open(self, started: Started) -> int:
        """Have a service wait; returns at which port."""
        with self._guard:
            port = next(self._numbers)
            self._waiting[port] = started
        return port

    def enter(self, port: int) -> Started | None:
        """The service at a port; it is there once."""
        with self._guard:
            return self._waiting.pop(port, None)


class Lockdown:
    def __init__(self, state: State, services: dict[str, Service], doors: Doors) -> None:
        self._state = state
        self._services = services
        self._doors = doors
        self._host: Host | None = None
        self._session = ""

    def serve(self, stream: Stream) -> None:
        """Answer until the host leaves; raises `StreamEnded`, `Malformed`."""
        while True:
            request = stream.read_plist()
            name = request.get("Request")
            answer: dict[str, Any] = {"Request": name if isinstance(name, str) else "", "Result": "Success"}
            try:
                answer |= self._answer(answer["Request"], request)
            except Failure as failure:
                answer |= {"Error": str(failure), "Result": "Failure"}
            stream.send_plist(answer)
            if "Error" in answer:
                continue
            if name == "StartSession" and self._host is not None:
                stream.secure(self._state.tls(self._host))
            elif name == "StopSession":
                self._host, self._session = None, ""
                stream.bare()
            elif name == "Goodbye":
                return

    def _answer(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        match name:
            case "QueryType":
                return {"Type": _TYPE}
            case "GetValue":
                return self._value(request)
            case "SetValue" | "RemoveValue":
                raise Failure("SetProhibited" if name == "SetValue" else "RemoveProhibited")
            case "Pair":
                return self._pair(request)
            case "ValidatePair":
                self._known(_record(request).get("HostID"))
                return {}
            case "Unpair":
                if not self._state.distrust(str(_record(request).get("HostID", ""))):
                    raise Failure("InvalidHostID")
                return {}
            case "StartSession":
                return self._start_session(request)
            case "StopSession":
                if not self._session or request.get("SessionID") != self._session:
                    raise Failure("InvalidSessionID" if self._session else "SessionInactive")
                return {}
            case "StartService":
                return self._start_service(request)
            case "Goodbye":
                return {}
        raise Failure("InvalidRequest")

    # -- values -----------------------------------------------------------------------------------------------------

    def _value(self, request: dict[str, Any]) -> dict[str, Any]:
        domain, key = request.get("Domain"), request.get("Key")
        if not isinstance(key, str | None):
            raise Failure("InvalidRequest")
        if domain:
            if not self._session:
                raise Failure("GetProhibited")
            values = self._domain(str(domain))
        else:
            values = self._state.identity.values() | {"PasswordProtected": self._state.mishaps.now.locked}
            if not self._session:
                if key in values and key not in identities.OPEN_VALUES:
                    raise Failure("GetProhibited")
                values = {name: value for name, value in values.items() if name in identities.OPEN_VALUES}
        place = {"Domain": domain} if domain else {}
        if key is None:
            return {"Value": values, **place}
        if key not in values:
            raise Failure("MissingValue")
        return {"Key": key, "Value": values[key], **place}

    def _domain(self, name: str) -> dict[str, Any]:
        """What is told in a domain; nothing in one that it does not know."""
        power = self._state.power
        match name:
            case "com.apple.mobile.battery":
                return {
                    "BatteryCurrentCapacity": round(power.percent),
                    "BatteryIsCharging": power.charging,
                    "ExternalChargeCapable": True,
                    "ExternalConnected": power.charging,
                    "FullyCharged": power.percent >= 100,
                    "GasGaugeCapability": True,
                    "HasBattery": True,
                }
            case "com.apple.disk_usage":
                free = max(0, identities.STORAGE_BYTES - size_of(self._state.folder))
                return {
                    "TotalDiskCapacity": identities.STORAGE_BYTES,
                    "TotalDataCapacity": identities.STORAGE_BYTES,
                    "TotalDataAvailable": free,
                    "AmountDataAvailable": free,
                }
            case "com.apple.security.mac.amfi":
                return {"DeveloperModeStatus": self._state.mishaps.now.developer_mode}
        return {}

    # -- trust ------------------------------------------------------------------------------------------------------

    def _pair(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            host, device_pem, host_pem = identities.check_pair_record(self._state.identity, _record(request))
        except Malformed as error:
            raise Failure("InvalidPairRecord") from error
        faults = self._state.mishaps.now
        if faults.locked or faults.pairing is PairingAnswer.locked:
            raise Failure("PasswordProtected")
        if faults.pairing is PairingAnswer.denied:
            raise Failure("UserDeniedPairing")
        if faults.pairing is PairingAnswer.pending:
            raise Failure("PairingDialogResponsePending")
        self._state.trust(Host(host, device_pem, host_pem))
        return {"EscrowBag": os.urandom(32)}  # lets nobody in

    def _known(self, host_id: object) -> Host:
        found = self._state.hosts().get(str(host_id))
        if found is None:
            raise Failure("InvalidHostID")
        return found

    def _start_session(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._session:
            raise Failure("SessionActive")
        self._host = self._known(request.get("HostID"))
        self._session = str(uuid.uuid4()).upper()
        return {"SessionID": self._session, "EnableSessionSSL": True}

    # -- services ---------------------------------------------------------------------------------------------------

    def _start_service(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._host is None:
            raise Failure("SessionInactive")
        if self._state.mishaps.now.locked:
            raise Failure("PasswordProtected")
        name = str(request.get("Service", ""))
        serve = self._services.get(name)
        if serve is None or (name in DEVELOPER and not (self._state.image and self._state.mishaps.now.developer_mode)):
            raise Failure("InvalidService")
        port = self._doors.open(Started(name, serve, self._host))
        return {"Service": name, "Port": port, "EnableServiceSSL": True}


def _record(request: dict[str, Any]) -> dict[str, Any]:
    record = request.get("PairRecord")
    if not isinstance(record, dict):
        raise Failure("MissingPairRecord")
    return record
