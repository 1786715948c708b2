"""The services that lockdownd starts, by their names."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from meltrepro.lab.iphone import installer, instruments
from meltrepro.lab.iphone.afc import AfcFiles
from meltrepro.lab.iphone.frames import Malformed
from meltrepro.lab.iphone.lockdown import Service
from meltrepro.lab.iphone.state import State
from meltrepro.lab.iphone.stream import Stream

_LARGEST_IMAGE = 256 << 20
_IMAGE_SIGNATURE = b"virtual developer image"


def files(state: State, stream: Stream) -> None:
    AfcFiles(state.media, state.mishaps).serve(stream)


def house_arrest(state: State, stream: Stream) -> None:
    """The container of one app, or of it only the documents."""
    while True:
        request = stream.read_plist()
        app = state.apps.get(str(request.get("Identifier", "")))
        if app is None:
            stream.send_plist({"Error": "ApplicationLookupFailed"})
            continue
        documents = request.get("Command") == "VendDocuments"
        if request.get("Command") not in ("VendContainer", "VendDocuments"):
            stream.send_plist({"Error": "InvalidCommand"})
        elif not (app.sharing if documents else app.development):
            stream.send_plist({"Error": "InstallationLookupFailed"})
        else:
            stream.send_plist({"Status": "Complete"})
            AfcFiles(app.container, state.mishaps, only="Documents" if documents else "").serve(stream)


def crash_files(state: State, stream: Stream) -> None:
    AfcFiles(state.crashes, state.mishaps).serve(stream)


def crash_mover(state: State, stream: Stream) -> None:
    """Says when crash reports are where hosts can see them, which they always are."""
    stream.send(b"ping\0")
    while True:
        stream.read_some(1)


def diagnostics(state: State, stream: Stream) -> None:
    while True:
        request = stream.read_plist()
        stream.send_plist(_diagnose(state, request))
        if request.get("Request") == "Goodbye":
            return


def _diagnose(state: State, request: dict[str, Any]) -> dict[str, Any]:
    success = {"Status": "Success"}
    match request.get("Request"):
        case "Goodbye":
            return success
        case "IORegistry":
            asked = (request.get("EntryClass"), request.get("EntryName"))
            known = "IOPMPowerSource" in asked or "AppleSmartBattery" in asked
            return {**success, "Diagnostics": {"IORegistry": power_source(state)} if known else {}}
        case "All" | "GasGauge":
            power = state.power
            gauge = {
                "CycleCount": 1,
                "DesignCapacity": round(power.body.capacity_mah),
                "FullChargeCapacity": round(power.body.capacity_mah),
                "Status": "Success",
            }
            return {**success, "Diagnostics": {"GasGauge": gauge}}
        case "MobileGestalt":
            return {**success, "Diagnostics": {"MobileGestalt": {"Status": "MobileGestaltDeprecated"}}}
    return {"Status": "UnknownRequest"}


def power_source(state: State) -> dict[str, Any]:
    """The battery as the registry of a phone's kernel has it: mA, mV, hundredths of a degree."""
    power = state.power
    milliamperes = round(power.current_ma) * (1 if power.charging else -1)
    return {
        "AppleRawCurrentCapacity": round(power.charge_mah),
        "AppleRawMaxCapacity": round(power.body.capacity_mah),
        "BatteryInstalled": True,
        "CurrentCapacity": round(power.percent),
        "CycleCount": 1,
        "DesignCapacity": round(power.body.capacity_mah),
        "ExternalConnected": power.charging,
        "FullyCharged": power.percent >= 100,
        "InstantAmperage": milliamperes,
        "Amperage": milliamperes,
        "IsCharging": power.charging,
        "MaxCapacity": 100,
        "MeltreproVirtual": True,
        "NominalChargeCapacity": round(power.body.capacity_mah),
        "Temperature": round(power.skin_c * 100),
        "UpdateTime": int(time.time()),
        "Voltage": round(power.body.voltage_v * 1000),
    }


def notifications(state: State, stream: Stream) -> None:
    """Takes wishes to be told of things, of which none ever happens."""
    while True:
        request = stream.read_plist()
        if request.get("Command") == "Shutdown":
            with contextlib.suppress(Exception):
                stream.send_plist({"Command": "ProxyDeath"})
            return


def assertions(state: State, stream: Stream) -> None:
    """Takes wishes to stay awake, which a virtual phone does anyway."""
    while True:
        request = stream.read_plist()
        known = request.get("CommandKey") == "CommandCreateAssertion"
        stream.send_plist({"Status": "Success"} if known else {"Error": "UnknownCommand"})


def image_mounter(state: State, stream: Stream) -> None:
    """Whether developer services are there, and how a host brings them: an image that is sent is received and forgotten."""
    received = False
    while True:
        request = stream.read_plist()
        answer: dict[str, Any] = {"Status": "Complete"}
        match request.get("Command"):
            case "LookupImage":
                answer |= {"ImagePresent": state.image, "ImageSignature": [_IMAGE_SIGNATURE] if state.image else []}
            case "CopyDevices":
                entry = {
                    "ImageType": "Developer",
                    "DiskImageType": "Developer",
                    "IsMounted": True,
                    "MountPath": "/Developer",
                }
                answer["EntryList"] = [{**entry, "ImageSignature": _IMAGE_SIGNATURE}] if state.image else []
            case "QueryDeveloperModeStatus":
                answer["DeveloperModeStatus"] = state.mishaps.now.developer_mode
            case "ReceiveBytes":
                size = request.get("ImageSize")
                if not isinstance(size, int) or not 0 <= size <= _LARGEST_IMAGE:
                    raise Malformed(f"an image of {size} bytes")
                stream.send_plist({"Status": "ReceiveBytesAck"})
                while size:
                    size -= len(stream.read_some(size))
                received = True
            case "MountImage":
                answer = _mount(state, received)
            case "UnmountImage":
                state.image = False
            case "Hangup":
                stream.send_plist({"Goodbye": True})
                return
            case _:
                answer = {"Error": "UnknownCommand"}
        stream.send_plist(answer)


def _mount(state: State, received: bool) -> dict[str, Any]:
    if not state.mishaps.now.developer_mode:
        return {"Error": "DeviceLocked", "DetailedError": "Developer mode is not enabled."}
    if state.image:
        return {"Error": "ImageMountFailed", "DetailedError": "A Developer image is already mounted."}
    if not received:
        return {"Error": "MissingImagePath", "DetailedError": "There is no image to mount."}
    state.image = True
    return {"Status": "Complete"}


SERVICES: dict[str, Service] = {
    "com.apple.afc": files,
    "com.apple.mobile.assertion_agent": assertions,
    "com.apple.mobile.house_arrest": house_arrest,
    "com.apple.crashreportcopymobile": crash_files,
    "com.apple.crashreportmover": crash_mover,
    "com.apple.mobile.diagnostics_relay": diagnostics,
    "com.apple.instruments.remoteserver.DVTSecureSocketProxy": instruments.serve,
    "com.apple.mobile.mobile_image_mounter": image_mounter,
    "com.apple.mobile.installation_proxy": installer.serve,
    "com.apple.mobile.notification_proxy": notifications,
}
