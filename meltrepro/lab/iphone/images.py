"""The image mounter: whether developer services are there, and how a host brings them."""

from __future__ import annotations

from typing import Any

from meltrepro.lab.iphone.frames import Malformed
from meltrepro.lab.iphone.state import State
from meltrepro.lab.iphone.stream import Stream

_LARGEST = 256 << 20
_SIGNATURE = b"virtual developer image"


def serve(state: State, stream: Stream) -> None:
    """Answer until the host leaves; raises `StreamEnded`, `Malformed`. An image that is sent is received and forgotten."""
    received = False
    while True:
        request = stream.read_plist()
        answer: dict[str, Any] = {"Status": "Complete"}
        match request.get("Command"):
            case "LookupImage":
                answer |= {"ImagePresent": state.image, "ImageSignature": [_SIGNATURE] if state.image else []}
            case "CopyDevices":
                entry = {
                    "ImageType": "Developer",
                    "DiskImageType": "Developer",
                    "IsMounted": True,
                    "MountPath": "/Developer",
                }
                answer["EntryList"] = [{**entry, "ImageSignature": _SIGNATURE}] if state.image else []
            case "QueryDeveloperModeStatus":
                answer["DeveloperModeStatus"] = state.mishaps.now.developer_mode
            case "ReceiveBytes":
                size = request.get("ImageSize")
                if not isinstance(size, int) or not 0 <= size <= _LARGEST:
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
