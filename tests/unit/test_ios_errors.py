"""What an iPhone and its library say when something is wrong, in words that help; the library need not be there."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.ios import errors as ios_errors
from meltrepro.targets.ios.errors import explain


def named(name: str, *bases: type[BaseException], **fields: Any) -> type[Exception]:
    """A class of the library, by its name."""
    return type(name, bases or (Exception,), fields)


@pytest.mark.parametrize(
    ("name", "lost", "hint"),
    [
        ("ConnectionFailedToUsbmuxdError", True, "USBMUXD_SOCKET_ADDRESS"),
        ("NoDeviceConnectedError", True, "plug it in"),
        ("DeviceNotFoundError", True, "plug it in"),
        ("PairingDialogResponsePendingError", False, "--pair"),
        ("UserDeniedPairingError", False, "--pair"),
        ("NotPairedError", False, "--pair"),
        ("InvalidHostIDError", False, "--pair"),
        ("PasswordRequiredError", False, "unlock"),
        ("DeveloperModeIsNotEnabledError", False, "Developer Mode"),
        ("TunneldConnectionError", False, "tunnel"),
        ("UserspaceTunnelUnavailableError", False, "tunnel"),
        ("AppNotInstalledError", False, "install the runner app"),
        ("ConnectionTerminatedError", True, "cable"),
        ("MuxException", True, "cable"),
    ],
)
def test_what_the_library_raises_has_a_next_step(name: str, lost: bool, hint: str) -> None:
    said = explain(named(name)("words"), "iPhone", "do it")
    assert isinstance(said, TargetLost) is lost
    assert hint in str(said.hint)
    assert said.message.startswith("iPhone: do it: ")


def test_classes_are_found_by_those_that_they_are_of() -> None:
    lock = named("NewKindOfLock", named("PasswordRequiredError"))
    assert "locked" in explain(lock(), "iPhone", "do it").message


@pytest.mark.parametrize(
    "error", [OSError("x"), ConnectionResetError(), EOFError(), asyncio.IncompleteReadError(b"", 4)]
)
def test_a_link_that_breaks_may_come_back(error: Exception) -> None:
    assert isinstance(explain(error, "iPhone", "do it"), TargetLost)


def test_so_may_a_phone_that_is_silent() -> None:
    said = explain(TimeoutError(), "iPhone", "do it")
    assert isinstance(said, TargetLost)
    assert "does not answer" in said.message


@pytest.mark.parametrize("error", [ValueError("bad plist"), AssertionError(), KeyError("x"), RuntimeError("no")])
def test_garbage_is_not_a_lost_link(error: Exception) -> None:
    said = explain(error, "iPhone", "do it")
    assert type(said) is ios_errors.Garbled
    assert type(error).__name__ in said.message


def test_the_library_is_missing() -> None:
    said = explain(ModuleNotFoundError("No module named 'pymobiledevice3'"), "iPhone", "do it")
    assert said.hint == ios_errors.how_to_install()


def test_a_checkout_installs_the_locked_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever installed the package some other way has neither the Makefile nor its lock."""
    root = Path(__file__).parents[2]
    monkeypatch.setattr(sys, "prefix", str(root / ".venv"))
    monkeypatch.chdir(root)
    assert ios_errors.how_to_install() == "make ios"
    monkeypatch.chdir(tmp_path)
    assert ios_errors.how_to_install() == "make ios, in the folder of the checkout"
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert ios_errors.how_to_install() == "pip install 'meltrepro[ios]'"


def test_a_service_that_is_not_offered_depends_on_the_version() -> None:
    """The phone says the same where an image is missing and where a tunnel is needed."""
    error = named("InvalidServiceError")()
    assert "disk image" in str(explain(error, "iPhone", "do it", 16).hint)
    assert "tunnel" in str(explain(error, "iPhone", "do it", 17).hint)


def test_a_download_that_needs_the_network() -> None:
    """`requests` raises an OSError of its own, which is no lost phone."""
    offline = type("ConnectionError", (OSError,), {"__module__": "requests.exceptions"})
    said = explain(offline("github.com"), "iPhone", "reach its developer services")
    assert type(said) is TargetError
    assert "internet" in str(said.hint)


class NsError:
    """An error as the phone sends it."""

    def __init__(self, domain: str, code: int, text: str, behind: NsError | None = None) -> None:
        self.domain, self.code = domain, code
        self.user_info = {"NSLocalizedDescription": text, "NSUnderlyingError": behind}


@pytest.mark.parametrize(
    ("domain", "code", "text", "says"),
    [
        ("FBSOpenApplicationErrorDomain", 7, "could not be, unlocked", "is locked"),
        ("FBSOpenApplicationErrorDomain", 3, "Security", "does not trust"),
        ("FBSOpenApplicationErrorDomain", 9, "has not been explicitly trusted by the user", "does not trust"),
        ("FBSOpenApplicationServiceErrorDomain", 4, "no such app", "not installed"),
        ("SomethingNew", 1, "nobody knows", "SomethingNew 1 nobody knows"),
    ],
)
def test_a_launch_that_is_refused(domain: str, code: int, text: str, says: str) -> None:
    """It comes as a plain Exception, the reason behind another error."""
    outer = NsError("com.apple.dt.deviceprocesscontrolservice", 2, "Failed to launch", NsError(domain, code, text))
    error = named("DTXNsError", error=outer)("a long text")
    said = explain(error, "iPhone", "launch")
    assert not said.transient
    assert says in said.message


def test_a_developer_who_is_not_trusted_from_ios_17_on() -> None:
    assert "does not trust" in explain(named("CoreDeviceError", code=10002)(), "iPhone", "launch").message
    assert "does not trust" not in explain(named("CoreDeviceError", code=1)("x"), "iPhone", "launch").message


def test_an_error_that_is_behind_itself() -> None:
    loop = NsError("a", 1, "b")
    loop.user_info["NSUnderlyingError"] = loop
    assert len(explain(named("DTXNsError", error=loop)(), "iPhone", "launch").message) <= 400


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ApplicationVerificationFailed: (0xe8008015)", "signature"),
        ("ApplicationVerificationFailed: 0xe8008016", "entitlements"),
        ("The device refused: InstallationLookupFailed", "does not share"),
    ],
)
def test_the_phones_own_words(text: str, says: str) -> None:
    for error in (RuntimeError(text), named("AppInstallError")(text), named("PyMobileDevice3Exception")(text)):
        assert says in explain(error, "iPhone", "install").message


def test_full_storage_and_other_refusals_of_files() -> None:
    full = named("AfcException", OSError, status=18)("x")
    other = named("AfcException", OSError, status=10)("Permission denied")
    assert "full" in explain(full, "iPhone", "write").message
    assert type(explain(full, "iPhone", "write")) is TargetError
    assert "Permission denied" in explain(other, "iPhone", "write").message


def test_requests_for_reports_to_somebody_else_are_left_out() -> None:
    said = explain(RuntimeError("odd.\nPlease report it at https://example.org"), "iPhone", "do it")
    assert "report" not in said.message


def test_ours_pass_as_they_are() -> None:
    error = TargetLost("gone")
    assert explain(error, "iPhone", "do it") is error


def test_every_name_is_one_of_the_librarys() -> None:
    exceptions = pytest.importorskip("pymobiledevice3.exceptions")
    others = {"QueueShutDown": "pymobiledevice3.dtx.service", "IncompleteReadError": "asyncio"}
    for name in (
        *ios_errors._MEANINGS,
        "AfcException",
        "InvalidServiceError",
        "CoreDeviceError",
        "AfcFileNotFoundError",
    ):
        module = importlib.import_module(others[name]) if name in others else exceptions
        assert issubclass(getattr(module, name), Exception), name
    assert issubclass(importlib.import_module("pymobiledevice3.dtx").DTXNsError, Exception)
