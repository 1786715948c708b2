"""Cocoa's keyed archives, as far as developer services need them: property lists of objects that refer to each other."""

from __future__ import annotations

import plistlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from meltrepro.lab.iphone.frames import UNREADABLE, Malformed

_VERSION = 100000
_DEEPEST = 64
_HIERARCHY = {
    "NSDictionary": ["NSDictionary", "NSObject"],
    "NSArray": ["NSArray", "NSObject"],
    "NSError": ["NSError", "NSObject"],
    "DTSysmonTapMessage": ["DTSysmonTapMessage", "DTTapMessage", "NSObject"],
}
_TEXT = ("NSString", "NSMutableString")
_LISTS = ("NSArray", "NSMutableArray", "NSSet", "NSMutableSet", "NSOrderedSet")
_MAPPINGS = ("NSDictionary", "NSMutableDictionary")
_DATA = ("NSData", "NSMutableData")


@dataclass(frozen=True)
class Error:
    """An `NSError`."""

    domain: str
    code: int
    text: str
    cause: Error | None = None


@dataclass(frozen=True)
class TapMessage:
    """What a tap, such as that of the system monitor, sends."""

    content: Any


@dataclass
class _Writer:
    objects: list[Any] = field(default_factory=lambda: ["$null"])
    classes: dict[str, plistlib.UID] = field(default_factory=dict)

    def add(self, value: Any) -> plistlib.UID:
        """Put an object into the archive; returns the reference to it."""
        if value is None:
            return plistlib.UID(0)
        place = len(self.objects)
        self.objects.append(None)
        self.objects[place] = self._object(value)
        return plistlib.UID(place)

    def _object(self, value: Any) -> Any:
        match value:
            case bool() | int() | float() | str() | bytes():
                return value
            case dict():
                keys, values = [self.add(key) for key in value], [self.add(each) for each in value.values()]
                return {"NS.keys": keys, "NS.objects": values, "$class": self._class("NSDictionary")}
            case list() | tuple():
                return {"NS.objects": [self.add(each) for each in value], "$class": self._class("NSArray")}
            case Error():
                told: dict[str, Any] = {"NSLocalizedDescription": value.text}
                if value.cause is not None:
                    told["NSUnderlyingError"] = value.cause
                return {
                    "NSDomain": self.add(value.domain),
                    "NSCode": value.code,
                    "NSUserInfo": self.add(told),
                    "$class": self._class("NSError"),
                }
            case TapMessage():
                return {"DTTapMessagePlist": self.add(value.content), "$class": self._class("DTSysmonTapMessage")}
        raise TypeError(f"{type(value).__name__} has no place in an archive")

    def _class(self, name: str) -> plistlib.UID:
        if name not in self.classes:
            self.classes[name] = plistlib.UID(len(self.objects))
            self.objects.append({"$classname": name, "$classes": _HIERARCHY[name]})
        return self.classes[name]


def pack(value: Any) -> bytes:
    """An archive of a value: text, numbers, bytes, lists, dictionaries, `Error`, `TapMessage`."""
    writer = _Writer()
    root = writer.add(value)
    return plistlib.dumps(
        {"$version": _VERSION, "$archiver": "NSKeyedArchiver", "$top": {"root": root}, "$objects": writer.objects},
        fmt=plistlib.FMT_BINARY,
    )


def unpack(data: bytes) -> Any:
    """The value of an archive; raises `Malformed`."""
    try:
        known = plistlib.loads(data, fmt=plistlib.FMT_BINARY)
        return _read(known["$objects"], known["$top"]["root"], 0)
    except Malformed:
        raise
    except UNREADABLE as error:
        raise Malformed(f"not an archive: {error!r}") from error


def _read(objects: list[Any], reference: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise Malformed("an archive that is too deep, or without end")
    if reference == plistlib.UID(0):
        return None
    found = objects[reference.data] if isinstance(reference, plistlib.UID) else reference
    if not isinstance(found, dict):
        return found
    read: Callable[[Any], Any] = lambda inner: _read(objects, inner, depth + 1)  # noqa: E731
    kind = objects[found["$class"].data]["$classname"]
    if kind in _MAPPINGS:
        return {read(key): read(value) for key, value in zip(found["NS.keys"], found["NS.objects"], strict=True)}
    if kind in _LISTS:
        return [read(each) for each in found["NS.objects"]]
    if kind in _TEXT:
        return found["NS.string"]
    if kind in _DATA:
        return found["NS.data"]
    if kind == "NSNull":
        return None
    if kind == "NSDate":
        return found["NS.time"]
    if kind == "NSError":
        told = read(found.get("NSUserInfo")) or {}
        return Error(str(read(found["NSDomain"])), int(found["NSCode"]), str(told.get("NSLocalizedDescription", "")))
    if kind == "DTSysmonTapMessage":
        return TapMessage(read(found["DTTapMessagePlist"]))
    raise Malformed(f"an archived {kind}")
