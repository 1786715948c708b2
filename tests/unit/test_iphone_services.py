"""The virtual iPhone's services against requests that make no sense: each is answered or ends the connection, no more."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meltrepro.lab.iphone import installer, services
from meltrepro.lab.iphone.archive import Error
from meltrepro.lab.iphone.channels import ServiceConnection
from meltrepro.lab.iphone.faults import Faults, PairingAnswer
from meltrepro.lab.iphone.frames import Malformed
from meltrepro.lab.iphone.instruments import CHANNELS
from meltrepro.lab.iphone.lockdown import Doors, Lockdown, Service, Started
from meltrepro.lab.iphone.mux import Mux, Result
from meltrepro.lab.iphone.state import Host, State
from meltrepro.lab.iphone.stream import Mishaps, Stream, StreamEnded
from meltrepro.lab.power import Power
from tests.support.examples import examples

ATOMS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=9) | st.binary(max_size=9)
ANYTHING = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
REQUESTS = (
    *("QueryType", "GetValue", "SetValue", "RemoveValue", "Pair", "ValidatePair", "Unpair"),
    *("StartSession", "StopSession", "StartService", "Nonsense"),
)
KEYS = (
    *("Domain", "Key", "PairRecord", "HostID", "SessionID", "Service", "Value", "Command", "ClientOptions"),
    *("PackagePath", "ApplicationIdentifier", "Identifier", "EntryClass", "EntryName", "ImageType", "ImageSize"),
    *("MessageType", "DeviceID", "PortNumber", "PairRecordID", "PairRecordData", "CommandKey"),
)
COMMANDS = (
    *("Browse", "Lookup", "Install", "Uninstall", "VendContainer", "VendDocuments", "LookupImage", "CopyDevices"),
    *("ReceiveBytes", "MountImage", "Hangup", "IORegistry", "All", "MobileGestalt", "Goodbye", "Shutdown"),
)
MUX = ("ListDevices", "ReadBUID", "Listen", "Connect", "ReadPairRecord", "SavePairRecord", "DeletePairRecord")


class Script:
    """A stream whose other side has written everything already."""

    service = "script"

    def __init__(self, *requests: dict[str, Any]) -> None:
        self._requests = list(requests)
        self.answers: list[dict[str, Any]] = []

    def read_plist(self) -> dict[str, Any]:
        if not self._requests:
            raise StreamEnded("there is no more")
        return self._requests.pop(0)

    def send_plist(self, body: dict[str, Any]) -> None:
        self.answers.append(body)

    def read(self, size: int) -> bytes:
        raise StreamEnded("there is no more")

    read_some = read

    def send(self, message: bytes) -> None:
        pass

    def secure(self, context: ssl.SSLContext) -> None:
        pass

    def bare(self) -> None:
        pass


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    state = State(tmp_path_factory.mktemp("phone"), "unit", Power())
    state.apps.put("org.example.app", ["/bin/true"])
    yield state
    state.processes.stop()


def _serve(serve: Service, state: State, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    script = Script(*requests)
    with contextlib.suppress(StreamEnded, Malformed):
        serve(state, cast(Stream, script))
    return script.answers


def _lockdown(state: State, stream: Stream) -> None:
    Lockdown(state, services.SERVICES, Doors()).serve(stream)


def _request(first: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """A request with any further keys, of any kind."""
    rest = st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=5)
    return st.builds(lambda known, more: {**more, **known}, first, rest)


def _named(key: str, names: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return _request(st.fixed_dictionaries({key: st.sampled_from(names) | ANYTHING}))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(50))
@given(st.lists(_named("Request", REQUESTS), max_size=4))
def test_lockdownd_answers_anything(state: State, requests: list[dict[str, Any]]) -> None:
    answers = _serve(_lockdown, state, *requests)
    assert len(answers) == len(requests)
    for request, answer in zip(requests, answers, strict=True):
        assert answer["Request"] == (request["Request"] if isinstance(request["Request"], str) else "")
        assert ("Error" in answer) == (answer["Result"] == "Failure")


@pytest.mark.parametrize(
    "serve",
    [
        installer.serve,
        services.image_mounter,
        services.house_arrest,
        services.diagnostics,
        services.notifications,
        services.assertions,
    ],
)
def test_services_answer_anything(state: State, serve: Service) -> None:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(50))
    @given(st.lists(st.one_of(_named("Command", COMMANDS), _named("Request", COMMANDS)), max_size=4))
    def check(requests: list[dict[str, Any]]) -> None:
        assert all(isinstance(answer, dict) for answer in _serve(serve, state, *requests))

    check()


@given(_named("MessageType", MUX))
def test_usbmuxd_answers_anything(tmp_path_factory: pytest.TempPathFactory, request: dict[str, Any]) -> None:
    folder = tmp_path_factory.getbasetemp() / "mux"
    folder.mkdir(exist_ok=True)
    mux = Mux(folder, "0000-1", Mishaps(), lambda port: None)
    try:
        answer = mux._connect(request) if request["MessageType"] == "Connect" else mux._answer(request)
    except Malformed:
        return
    assert isinstance(answer, dict | Result)
    assert not list(folder.glob("*.plist.*")) and not (folder.parent / "plist").exists()


@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_developer_services_answer_anything(state: State, name: str) -> None:
    connection = ServiceConnection(state, cast(Stream, Script()), CHANNELS)
    channel = CHANNELS[name](connection, 1)
    methods = sorted(set(channel.methods()) - {"start"})

    known = st.just("org.example.app") | st.just({"procAttrs": ["pid"]}) | ANYTHING

    @given(st.sampled_from(methods), st.lists(known, max_size=5))
    def check(method: str, arguments: list[Any]) -> None:
        with contextlib.suppress(TypeError, ValueError):  # which the connection answers with an error
            channel.call(method, *arguments)

    check()
    assert isinstance(channel.call("nothing of the kind"), Error)
    channel.close()


# -- what lockdownd grants ----------------------------------------------------------------------------------------------


def _ask(state: State, *requests: dict[str, Any]) -> list[str]:
    return [answer.get("Error", "Success") for answer in _serve(_lockdown, state, *requests)]


def test_without_a_session_there_is_little(state: State) -> None:
    assert _ask(
        state,
        {"Request": "GetValue", "Key": "UniqueDeviceID"},
        {"Request": "GetValue", "Key": "SerialNumber"},
        {"Request": "GetValue", "Domain": "com.apple.disk_usage"},
        {"Request": "StartService", "Service": "com.apple.afc"},
        {"Request": "StopSession", "SessionID": "x"},
        {"Request": "StartSession", "HostID": "nobody"},
        {"Request": "SetValue", "Key": "DeviceName", "Value": "mine"},
        {"Request": "Unpair", "PairRecord": {"HostID": "nobody"}},
    ) == [
        *("Success", "GetProhibited", "GetProhibited", "SessionInactive", "SessionInactive", "InvalidHostID"),
        *("SetProhibited", "InvalidHostID"),
    ]


def test_with_a_session_there_is_more(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    state.trust(Host("me", "", ""))
    monkeypatch.setattr(state, "tls", lambda host: None)
    start = {"Request": "StartSession", "HostID": "me"}
    assert _ask(
        state,
        start,
        start,
        {"Request": "GetValue", "Key": "SerialNumber"},
        {"Request": "GetValue", "Key": "NoSuchValue"},
        {"Request": "GetValue", "Domain": "com.apple.disk_usage", "Key": "TotalDiskCapacity"},
        {"Request": "StartService", "Service": "com.apple.afc"},
        {"Request": "StartService", "Service": "com.apple.nothing"},
        {"Request": "StopSession", "SessionID": "another"},
    ) == [
        *("Success", "SessionActive", "Success", "MissingValue", "Success", "Success", "InvalidService"),
        "InvalidSessionID",
    ]
    state.distrust("me")


@pytest.mark.parametrize("faults", [Faults(), Faults(pairing=PairingAnswer.denied)])
def test_a_record_for_another_phone_is_not_even_asked_about(state: State, tmp_path: Path, faults: Faults) -> None:
    other = State(tmp_path, "other", Power())
    record = {
        "HostID": "me",
        "DeviceCertificate": other.identity.public_pem,
        "HostCertificate": b"",
        "RootCertificate": b"",
    }
    state.mishaps.set(faults)
    assert _ask(state, {"Request": "Pair", "PairRecord": record}) == ["InvalidPairRecord"]
    state.mishaps.set(Faults())
    assert state.hosts() == {}


def test_a_door_is_there_once() -> None:
    doors, started = Doors(), Started("a", lambda state, stream: None, Host("me", "", ""))
    first, second = doors.open(started), doors.open(started)
    assert first != second
    assert doors.enter(first) is started
    assert doors.enter(first) is None
