"""What goes wrong between this machine and an iPhone, in this project's errors.

pymobiledevice3 raises its own tree, plain `Exception`s, bare assertions and errors of the libraries that it uses. They
are told apart by the names of their classes, so that nothing of it has to be imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meltrepro import resources
from meltrepro.errors import DriverMissing, TargetError, TargetLost

PAIR = "unlock the phone and run: meltrepro devices --pair UDID, then tap Trust"
MODE = "switch on Developer Mode: Settings, Privacy & Security (the phone restarts)"
TRUST = "Settings, General, VPN & Device Management: trust the developer; a profile that has run out must be renewed"
SIGN = "sign it anew with a profile that names this phone (docs/devices/ios.md)"
DISK = (
    "the developer disk image is not on the phone and could not be put there; connect this machine to the internet once"
)
TUNNEL = "from iOS 17 on developer services need a tunnel: docs/devices/ios.md, section Tunnels"
_NO_SPACE = 18
"""Status of AFC where the storage is full."""
_NOT_TRUSTED = 10002
"""Code of CoreDevice for an app whose developer is not trusted."""
_LAST_CLASSIC = 16
"""Latest major version of iOS whose developer services lockdownd starts."""


@dataclass(frozen=True)
class _Meaning:
    text: str
    hint: str | None = None
    lost: bool = False
    """Whether it may come back by itself."""


_GONE = _Meaning("the link broke", "look at the cable", lost=True)
_ABSENT = _Meaning("the app is not installed", "install the runner app: docs/devices/ios.md")
_LOCKED = _Meaning("the phone is locked", "unlock it, and set Auto-Lock to Never")
_MEANINGS: Mapping[str, _Meaning] = {
    "ConnectionFailedToUsbmuxdError": _Meaning(
        "no usbmuxd answers", "install and start usbmuxd, or say where it is: USBMUXD_SOCKET_ADDRESS", lost=True
    ),
    "NoDeviceConnectedError": _Meaning("no iPhone is attached", "plug it in and unlock it", lost=True),
    "DeviceNotFoundError": _Meaning("it is not attached", "plug it in; meltrepro devices shows who is", lost=True),
    "BadDevError": _Meaning("it is not attached any more", "plug it in", lost=True),
    "PairingDialogResponsePendingError": _Meaning("the phone still asks whether to trust this computer", PAIR),
    "UserDeniedPairingError": _Meaning("somebody told the phone not to trust this computer", PAIR),
    "NotPairedError": _Meaning("the phone does not know this computer", PAIR),
    "NotTrustedError": _Meaning("the phone does not know this computer", PAIR),
    "InvalidHostIDError": _Meaning("the phone does not know this computer any more", PAIR),
    "FatalPairingError": _Meaning("the phone does not take this computer's pairing any more", PAIR),
    "PasswordRequiredError": _LOCKED,
    "PasscodeRequiredError": _LOCKED,
    "PairingError": _Meaning("pairing failed", PAIR),
    "DeveloperModeIsNotEnabledError": _Meaning("Developer Mode is off", MODE),
    "DeveloperDiskImageNotFoundError": _Meaning("there is no developer disk image for this version of iOS", DISK),
    "TSSError": _Meaning("Apple's server did not sign the developer disk image for this phone", DISK),
    "TunneldConnectionError": _Meaning("no tunnel to the phone", TUNNEL),
    "UserspaceTunnelUnavailableError": _Meaning("no tunnel to the phone without root", TUNNEL),
    "RSDRequiredError": _Meaning("this needs a tunnel", TUNNEL),
    "QuicProtocolNotSupportedError": _Meaning("the tunnel speaks a protocol that is no more", TUNNEL),
    "PskCipherNotSupportedError": _Meaning("this Python cannot encrypt the tunnel", TUNNEL),
    "AppNotInstalledError": _ABSENT,
    "ConnectionTerminatedError": _GONE,
    "ChannelClosedError": _GONE,
    "NotConnectedError": _GONE,
    "InvalidConnectionError": _GONE,
    "MuxException": _GONE,
    "RemotePairingCompletedError": _GONE,
    "QueueShutDown": _GONE,
    "IncompleteReadError": _GONE,
}
"""By class name, looked up along the classes that an error is of."""
_SAID: tuple[tuple[tuple[str, ...], _Meaning], ...] = (
    (("0xe8008016",), _Meaning("the phone refuses the app's entitlements", SIGN)),
    (("0xe8008015", "ApplicationVerificationFailed"), _Meaning("the phone refuses the app's signature", SIGN)),
    (
        ("InstallationLookupFailed",),
        _Meaning("the app does not share its files", "it must be development-signed, or set UIFileSharingEnabled"),
    ),
    (("MobileGestaltDeprecated",), _Meaning("this version of iOS does not tell")),
)
"""What the device's own words in other errors mean."""
_UNTRUSTED = _Meaning("the phone does not trust the app's developer", TRUST)
_LAUNCH: tuple[tuple[tuple[str, ...], _Meaning], ...] = (
    (("FBSOpenApplicationErrorDomain 7", "Locked"), _LOCKED),
    (("FBSOpenApplicationErrorDomain 3", "Security", "explicitly trusted"), _UNTRUSTED),
    (("FBSOpenApplicationServiceErrorDomain 4", "not installed", "UnknownApplication"), _ABSENT),
)
"""What the reasons mean for which an app is not started, as far as somebody has reported them."""


class Garbled(TargetError):
    """An answer that means nothing, after which what comes on the same connection may mean nothing either."""


def how_to_install() -> str:
    """The command that installs the library: in a checkout the locked one."""
    return resources.make("ios") or "pip install 'meltrepro[ios]'"


def missing() -> DriverMissing:
    """The library for iPhones is not installed."""
    return DriverMissing("iPhones need pymobiledevice3, which is not installed", hint=how_to_install())


def silent(device: str, what: str, limit_s: float) -> TargetLost:
    """Nothing moved for too long."""
    return TargetLost(
        f"{device}: {what}: nothing for {limit_s:g} s", hint="look at the cable, and whether the phone is awake"
    )


def explain(error: BaseException, device: str, what: str, version: int | None = None) -> TargetError:
    """An error of a phone or its libraries as ours: `TargetLost` where it may come back by itself.

    `version` is the major version of iOS, where it is known.
    """
    if isinstance(error, TargetError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return missing()
    text = _reasons(getattr(error, "error", None)) or _text(error)
    meaning = _meaning(error, text, version)
    if meaning is None:
        kind = type(error).__name__
        return Garbled(f"{device}: {what}: an answer that cannot be understood ({kind}: {text})"[:400])
    told = f" ({text})" if text and meaning in (_GONE, *(each for _, each in _SAID)) else ""
    message = f"{device}: {what}: {meaning.text}{told}"[:400]
    return TargetLost(message, hint=meaning.hint) if meaning.lost else TargetError(message, hint=meaning.hint)


def _meaning(error: BaseException, text: str, version: int | None) -> _Meaning | None:
    """The phone's own words first, then the particular kinds, then the table, then what every broken link looks like."""
    names = [kind.__name__ for kind in type(error).__mro__]
    said = _by_words(_SAID, text) or (_by_words(_LAUNCH, text) if "DTXNsError" in names else None)
    if said is not None:
        return said
    if "CoreDeviceError" in names and getattr(error, "code", None) == _NOT_TRUSTED:
        return _UNTRUSTED
    if "AfcException" in names:
        return _of_afc(error)
    if "InvalidServiceError" in names:
        return _of_service(version)
    if _is_offline(error):
        return _Meaning("what the phone needs for developers cannot be downloaded", DISK)
    known = next((_MEANINGS[name] for name in names if name in _MEANINGS), None)
    if known is None and isinstance(error, TimeoutError):
        return _Meaning("it does not answer", "look at the cable, and whether the phone is awake", lost=True)
    if known is None and isinstance(error, OSError | EOFError):
        return _GONE
    return known


def _text(error: BaseException) -> str:
    """An error's first line; the library asks for reports to its authors in the next."""
    return " ".join(str(error).partition("\n")[0].split())[:200]


def _reasons(error: object, depth: int = 4) -> str:
    """An error of the phone and those that are behind it: domain, number and words of each."""
    domain, code, info = (getattr(error, name, None) for name in ("domain", "code", "user_info"))
    if domain is None or depth == 0:
        return ""
    info = info if isinstance(info, dict) else {}
    words = [str(info[name]) for name in ("NSLocalizedDescription", "NSLocalizedFailureReason") if info.get(name)]
    said = " ".join(f"{domain} {code} {': '.join(words)}".split())[:300]
    return "; ".join(filter(None, (_reasons(info.get("NSUnderlyingError"), depth - 1), said)))


def _by_words(table: tuple[tuple[tuple[str, ...], _Meaning], ...], text: str) -> _Meaning | None:
    return next((meaning for words, meaning in table if any(word in text for word in words)), None)


def _of_afc(error: BaseException) -> _Meaning:
    if getattr(error, "status", None) == _NO_SPACE:
        return _Meaning("its storage is full", "free space on the phone")
    return _Meaning(f"its file service refuses: {_text(error)}")


def _of_service(version: int | None) -> _Meaning:
    """The phone says the same where a disk image is missing and where a tunnel is needed."""
    if version is not None and version > _LAST_CLASSIC:
        return _Meaning("it does not offer this without a tunnel", TUNNEL)
    return _Meaning("it does not offer this service", DISK)


def _is_offline(error: BaseException) -> bool:
    """Whether `requests` could not reach a server; its errors are `OSError`s too."""
    return any(kind.__module__.startswith(("requests", "urllib3")) for kind in type(error).__mro__)
