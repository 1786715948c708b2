"""The installation proxy: which apps there are, and packages that come and go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from meltrepro.lab.iphone.apps import App, PackageRefused, size_of
from meltrepro.lab.iphone.state import State
from meltrepro.lab.iphone.stream import Stream

_AT_ONCE = 20
"""Apps in one answer."""


def serve(state: State, stream: Stream) -> None:
    """Answer until the host leaves; raises `StreamEnded`, `Malformed`."""
    while True:
        request = stream.read_plist()
        options = request.get("ClientOptions")
        options = options if isinstance(options, dict) else {}
        match request.get("Command"):
            case "Browse":
                _browse(state, stream, options)
            case "Lookup":
                wanted = options.get("BundleIDs")
                apps = _of_type(state.apps.all(), options)
                found = {
                    app.identifier: _chosen(app, options) for app in apps if not wanted or app.identifier in wanted
                }
                stream.send_plist({"LookupResult": found, "Status": "Complete"})
            case "Install" | "Upgrade":
                _install(state, stream, str(request.get("PackagePath", "")))
            case "Uninstall":
                _uninstall(state, stream, str(request.get("ApplicationIdentifier", "")))
            case _:
                stream.send_plist({"Error": "UnknownCommand", "ErrorDescription": "a virtual iPhone does not know it"})


def _browse(state: State, stream: Stream, options: dict[str, Any]) -> None:
    apps = [_chosen(app, options) for app in _of_type(state.apps.all(), options)]
    for begin in range(0, len(apps), _AT_ONCE):
        part = apps[begin : begin + _AT_ONCE]
        stream.send_plist(
            {"CurrentIndex": begin, "CurrentAmount": len(part), "CurrentList": part, "Status": "BrowsingApplications"}
        )
    stream.send_plist({"Status": "Complete"})


def _of_type(apps: Iterable[App], options: dict[str, Any]) -> list[App]:
    """All of the apps are a user's; a phone's own are not made up."""
    return list(apps) if options.get("ApplicationType", "Any") in ("Any", "User") else []


def _chosen(app: App, options: dict[str, Any]) -> dict[str, Any]:
    wanted = options.get("ReturnAttributes")
    described = app.describe()
    sizes: dict[str, Callable[[], int]] = {
        "StaticDiskUsage": lambda: size_of(Path(app.place) / "bundle"),
        "DynamicDiskUsage": lambda: size_of(app.container),
    }
    if not isinstance(wanted, list):
        return described
    return {name: value for name, value in described.items() if name in wanted} | {
        name: size() for name, size in sizes.items() if name in wanted
    }


def _install(state: State, stream: Stream, name: str) -> None:
    path = state.media / os.path.normpath("/" + name).lstrip("/")
    stream.send_plist({"Status": "CreatingStagingDirectory", "PercentComplete": 5})
    refused = state.mishaps.now.install_refused
    try:
        if refused is not None:
            raise PackageRefused(refused)
        if not path.is_file():
            raise PackageRefused("PackageInspectionFailed")
        stream.send_plist({"Status": "VerifyingApplication", "PercentComplete": 40})
        state.apps.install(path)
    except PackageRefused as error:
        stream.send_plist({"Error": str(error), "ErrorDescription": f"{Path(name).name} is not taken: {error}"})
        return
    stream.send_plist({"Status": "Complete"})


def _uninstall(state: State, stream: Stream, identifier: str) -> None:
    for each in state.processes.all():
        if each.app.identifier == identifier:
            state.processes.send_signal(each.pid, 9)
            each.ended.wait()
    stream.send_plist({"Status": "RemovingApplication", "PercentComplete": 50})
    state.apps.remove(identifier)  # one that is not there is removed as well as any
    stream.send_plist({"Status": "Complete"})
