"""What the head of a lab remembers of devices, and what it answers to campaigns that want one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from meltrepro.hosts import wire
from meltrepro.hosts.serve import Head
from meltrepro.hosts.wire import LabState, OfferedDevice
from meltrepro.settings import Settings
from tests.support.labs import offer

T = TypeVar("T")


@dataclass
class Workers:
    """Stands in for dask's scheduler: workers come and go."""

    workers: dict[str, Any] = field(default_factory=dict)
    handlers: dict[str, Callable[..., Any]] = field(default_factory=dict)
    plugin: Any = None

    def add_plugin(self, plugin: Any, name: str) -> None:
        self.plugin = plugin

    async def remove_worker(self, address: str, **_: object) -> None:
        del self.workers[address]
        self.plugin.remove_worker(self, address)

    def come(self, name: str) -> None:
        @dataclass
        class Worker:
            name: str
            processing: tuple[()] = ()

        self.workers[name] = Worker(name)
        self.plugin.add_worker(self, name)

    def go(self, name: str) -> None:
        del self.workers[name]
        self.plugin.remove_worker(self, name)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "cache", tmp_path / "home", offline=True, mirrors=None, jobs=1)


class Lab:
    """A head, and questions to it."""

    def __init__(self, settings: Settings) -> None:
        self.said: list[str] = []
        self.head = Head(settings, self.said.append)
        self.dask = Workers()
        self.head.attach(self.dask)

    def ask(self, question: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(question)

    def hello(self, node: str, *devices: str, worker: str = "w1", host: str = "h") -> dict[str, Any]:
        offers = wire.packed([offer(node, device) for device in devices])
        who = self.head.hello(node, wire.versions(), time.time_ns(), host, f"{node}/{worker}", offers)
        said = self.ask(who)
        if said["refused"] is None:
            self.dask.come(f"{node}/{worker}")
        return said

    def turn(self, device: str, who: str = "me") -> dict[str, Any]:
        return self.ask(self.head.turn(device, "campaign", who, 0, 0, 10))

    def device(self, device: str) -> OfferedDevice:
        state: LabState = wire.unpacked(self.ask(self.head.state()))
        return next(each for each in state.devices if each.offer.id == device)


@pytest.fixture
def lab(settings: Settings) -> Lab:
    return Lab(settings)


def test_a_device_that_fails_twice_in_a_row_is_left_alone(lab: Lab) -> None:
    lab.hello("n", "a", "b")
    for trouble in ("lost", None, "lost"):
        lab.ask(lab.head.ended("a", trouble))
    assert lab.turn("a")["never"] is None
    lab.ask(lab.head.ended("a", "lost again"))
    assert "lost again" in lab.turn("a")["never"]
    assert lab.turn("b")["never"] is None
    assert lab.device("a").quarantined == "lost again"
    assert lab.ask(lab.head.release("a"))
    assert lab.turn("a") == {"wait": None, "away_s": None, "never": None}
    assert not lab.ask(lab.head.release("a"))


def test_a_device_that_was_plugged_in_again_is_used_again(lab: Lab) -> None:
    lab.hello("n", "a", "b")
    for _ in range(2):
        lab.ask(lab.head.ended("a", "lost"))
    lab.hello("n", "b", worker="w2")
    assert not lab.device("a").there
    assert lab.turn("a")["never"] is not None
    lab.hello("n", "a", "b", worker="w3")
    assert lab.device("a").there
    assert lab.turn("a")["never"] is None


def test_a_node_that_only_starts_again_ends_no_quarantine(lab: Lab) -> None:
    lab.hello("n", "a")
    for _ in range(2):
        lab.ask(lab.head.ended("a", "lost"))
    lab.hello("n", "a", worker="w2")
    assert lab.turn("a")["never"] is not None


def test_a_node_that_goes_takes_its_devices_along(lab: Lab) -> None:
    lab.hello("n", "a")
    assert lab.turn("a")["wait"] is None
    lab.dask.go("n/w1")
    said = lab.turn("a")
    assert said["wait"] == "a is away with n"
    assert 0 <= said["away_s"] < 5
    lab.hello("n", "a", worker="w2")
    assert lab.turn("a")["wait"] is None


def test_a_device_moves_to_another_node(lab: Lab) -> None:
    lab.hello("n", "a")
    assert lab.hello("m", "a")["doubled"] == {"a": "a is offered by n already"}
    lab.dask.go("n/w1")
    assert lab.hello("m", "a", worker="w2")["doubled"] == {}
    assert lab.device("a").offer.node == "m"
    assert lab.device("a").there


def test_two_hosts_of_one_name(lab: Lab) -> None:
    lab.hello("n", "a", host="x")
    assert "name this one otherwise" in lab.hello("n", "b", worker="w2", host="y")["refused"]
    assert lab.device("a").there
    lab.dask.go("n/w1")
    assert lab.hello("n", "b", worker="w3", host="y")["refused"] is None


def test_a_reservation_has_an_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.hello("n", "a")
    assert lab.ask(lab.head.reserve("a", "me", 60)) is None
    assert lab.ask(lab.head.reserve("a", "you", 60)) == "a is reserved for me already"
    assert lab.ask(lab.head.reserve("z", "me", 60)) == "no node offers z"
    assert lab.turn("a", "me")["wait"] is None
    assert lab.turn("a", "you")["wait"].startswith("a is reserved for me until ")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert lab.turn("a", "you")["wait"] is None


def test_a_head_that_starts_again_remembers_what_people_decided(lab: Lab, settings: Settings) -> None:
    lab.hello("n", "a", "b")
    lab.ask(lab.head.reserve("a", "me", 60))
    for _ in range(2):
        lab.ask(lab.head.ended("b", "lost"))
    again = Lab(settings)
    assert again.turn("a")["wait"] == "no node offers a yet"
    again.hello("n", "a", "b")
    assert again.turn("a", "you")["wait"].startswith("a is reserved for me")


def test_how_long_a_campaign_will_take(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.hello("n", "a")
    now = time.time()
    for done, after_s in ((4, 0), (6, 20)):
        monkeypatch.setattr(time, "time", lambda after_s=after_s: now + after_s)
        lab.ask(lab.head.turn("a", "c", "me", 3, done, 10))
    state: LabState = wire.unpacked(lab.ask(lab.head.state()))
    (campaign,) = state.campaigns
    assert campaign.eta_s == pytest.approx(40)
    assert (campaign.done, campaign.total, campaign.priority, campaign.who) == (6, 10, 3, "me")


def test_files_travel_in_pieces(lab: Lab, settings: Settings) -> None:
    import hashlib

    content = bytes(range(256)) * 100
    digest = hashlib.sha256(content).hexdigest()
    assert lab.ask(lab.head.missing([digest])) == [digest]
    for at in range(0, len(content), 10_000):
        piece = content[at : at + 10_000]
        lab.ask(lab.head.put(digest, at, piece, at + len(piece) == len(content)))
    assert lab.ask(lab.head.missing([digest])) == []
    assert lab.ask(lab.head.get(digest, 0)) == content
    assert lab.ask(lab.head.get(digest, len(content))) == b""
