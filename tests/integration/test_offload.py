"""Two real runners with an engine that costs nothing: one has the engine, the other one asks.

First by themselves, over a loopback link; then as the trial of two targets, this machine and a board behind a real sshd.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from meltrepro import resources
from meltrepro.build.model import Artifact
from meltrepro.campaign import failure
from meltrepro.errors import TargetError
from meltrepro.lab.relay import Relay
from meltrepro.measure.metrics import compute
from meltrepro.record import trial as record
from meltrepro.record.events import read_trace
from meltrepro.record.trial import Request, RequestPeer, RequestSampling
from meltrepro.targets.base import AGENT, RUNNER, TrialJob
from meltrepro.targets.host.options import HostOptions
from meltrepro.targets.host.target import HostTarget
from meltrepro.targets.offload import Meeting, OffloadTarget
from meltrepro.targets.remote.linux import LinuxPlatform
from meltrepro.targets.remote.remote import RemoteTarget
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.ssh.config import Route
from meltrepro.targets.ssh.link import SshLink
from tests.support.sshd import USER, Sshd, make_key

pytestmark = pytest.mark.integration

GREEDY = RequestSampling(greedy=True, temperature=1, top_k=0, top_p=1, repeat_penalty=1, repeat_last_n=0, seed=0)
WAIT_S = 20


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Runner and agent, compiled by this machine's own compiler."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("parrot")
    (folder / "bin").mkdir()
    (folder / "bundle.json").write_text("{}")
    others = ("agent.cpp", "sensor_sampler.cpp")
    runner = [
        str(each) for each in resources.runner().iterdir() if each.name.endswith(".cpp") and each.name not in others
    ]
    runner.append(str(Path(__file__).with_name("parrot_engine.cpp")))
    for name, sources in ((RUNNER, runner), (AGENT, [str(resources.runner() / "agent.cpp")])):
        command = ["c++", "-std=c++17", "-O1", "-iquote", str(resources.runner()), *sources, "-o", str(folder / name)]
        subprocess.run(command, check=True)
    return Artifact("parrot", "bundle", "0" * 64, "0" * 64, folder, folder, 1)


@pytest.fixture(scope="module")
def program(bundle: Artifact) -> Path:
    return bundle.path / RUNNER


@pytest.fixture
def port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pair:
    """Both sides of one trial, each with a folder."""

    def __init__(self, program: Path, folder: Path, port: int) -> None:
        self.program, self.folder, self.port = program, folder, port
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, side: str, token: str = "secret", **changes: Any) -> subprocess.Popen[bytes]:
        peer = RequestPeer(address="127.0.0.1", port=self.port, token=token)
        request = Request(
            model=str(self.program),  # any file that is there
            context=256,
            threads=1,
            batch=16,
            max_tokens=8,
            ignore_eos=False,
            sampling=GREEDY,
            conversations=[["aa", "bb"], ["ww"]],
            warmup_tokens=0,
        ).model_copy(update={side: peer, **changes})
        folder = self.folder / side
        folder.mkdir()
        (folder / "request.json").write_text(request.model_dump_json(exclude_none=True))
        command = [self.program, folder / "request.json", folder / "events.jsonl"]
        self.running.append(subprocess.Popen(command, stderr=(folder / "stderr").open("w")))
        return self.running[-1]

    def events(self, side: str) -> Path:
        return self.folder / side / "events.jsonl"

    def error(self, side: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.events(side).read_text().splitlines()[-1])
        assert found["e"] == "error"
        return found


@pytest.fixture
def pair(program: Path, tmp_path: Path, port: int) -> Iterator[Pair]:
    pair = Pair(program, tmp_path, port)
    yield pair
    for process in pair.running:
        process.kill()
        process.wait()


@pytest.mark.parametrize("first", ["serve", "ask"])
def test_one_asks_and_the_other_answers(pair: Pair, first: str) -> None:
    """Whichever is there before the other."""
    sides = [first, *({"serve", "ask"} - {first})]
    processes = []
    for side in sides:
        processes.append(pair.start(side))
        time.sleep(0.3)
    assert [process.wait(WAIT_S) for process in processes] == [0, 0]
    asked, served = (read_trace(pair.events(side)) for side in ("ask", "serve"))
    assert [turn.text for turn in asked.turns] == ["bcdefghi", "cdefghij", "xyz"]
    assert [turn.token_ids for turn in asked.turns] == [turn.token_ids for turn in served.turns]
    assert [(turn.n_prompt, turn.n_past, turn.stop) for turn in asked.turns] == [
        (turn.n_prompt, turn.n_past, turn.stop) for turn in served.turns
    ]
    assert (asked.load.n_params, asked.context.n_ctx, asked.effective) == (2, 256, {"parrot": "yes"})
    for here, there in zip(asked.turns, served.turns, strict=True):
        assert here.prefill is None and here.served is not None and there.served is None
        # One clock on one machine: what the engine took lies within the turn.
        assert there.end_ns - there.begin_ns <= here.served.ns <= here.end_ns - here.begin_ns
        assert here.served.first_ns is not None and here.served.first_ns <= here.served.ns


def test_what_the_link_carries_is_counted(pair: Pair) -> None:
    processes = [pair.start("serve"), pair.start("ask")]
    assert [process.wait(WAIT_S) for process in processes] == [0, 0]
    trace = read_trace(pair.events("ask"))
    values = compute(trace).values
    sent = [len('{"text":"' + prompt + '"}\n') for prompt in ("aa", "bb", "ww")]
    assert values["link_sent_bytes"] == sum(sent)
    told = sum(
        len(f'{{"token":{id},"text":"{chr(id) if id < 128 else ""}"}}\n')
        for turn in trace.turns
        for id in turn.token_ids
    )
    ends = values["link_received_bytes"] - told
    assert 3 * 80 < ends < 3 * 300  # a line that ends each turn
    assert values["ttft_ms"] >= values["link_ttft_ms"] >= 0
    assert values["served_ttft_ms"] >= 0 and values["prompt_tokens"] == 6
    assert "prefill_tps" not in values


def test_texts_of_two_sides_may_differ(pair: Pair) -> None:
    """The engine answers what it is asked, not what its own request says."""
    processes = [pair.start("serve", conversations=[["x", "x"], ["x"]]), pair.start("ask")]
    assert [process.wait(WAIT_S) for process in processes] == [0, 0]
    assert [turn.text for turn in read_trace(pair.events("serve")).turns] == ["bcdefghi", "cdefghij", "xyz"]


def test_strangers_are_refused(pair: Pair) -> None:
    serving = pair.start("serve")
    asking = pair.start("ask", token="guessed")
    assert serving.wait(WAIT_S) == 5 and asking.wait(WAIT_S) == 4
    assert "not of this trial" in pair.error("serve")["message"]
    assert "its token is not that of this trial" in pair.error("ask")["message"]


def test_a_relay_may_close_what_it_took(pair: Pair) -> None:
    """As `ssh -L` and `adb forward` do as long as nobody listens behind them."""
    relay = Relay()
    try:
        relay.lead_to(os.getpid(), pair.port)
        peer = RequestPeer(address="127.0.0.1", port=relay.port, token="secret")
        asking = pair.start("ask", ask=peer)
        time.sleep(0.5)
        assert asking.poll() is None, pair.error("ask")
        assert pair.start("serve").wait(WAIT_S) == 0 and asking.wait(WAIT_S) == 0
    finally:
        relay.close()
    assert [turn.text for turn in read_trace(pair.events("ask")).turns] == ["bcdefghi", "cdefghij", "xyz"]


@pytest.mark.parametrize(
    "sent", [b"no json\n", b'{"token": 3}\n', b"\xff\xfe\n", b'{"token": "secret"}\n{"tex": "a"}\n']
)
def test_garbage_is_refused(pair: Pair, sent: bytes) -> None:
    serving = pair.start("serve")
    for _ in range(100):
        try:
            link = socket.create_connection(("127.0.0.1", pair.port))
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    with link:
        link.sendall(sent)
        assert serving.wait(WAIT_S) == 5
    assert pair.error("serve")["message"].startswith("link: ")


@pytest.mark.parametrize(("killed", "left"), [("ask", "serve"), ("serve", "ask")])
def test_a_side_that_is_killed_ends_the_other(pair: Pair, killed: str, left: str) -> None:
    """Once they have spoken, nobody tries again."""
    sides = {side: pair.start(side, turn_pause_ms=60_000 if side == killed else 0) for side in ("serve", "ask")}
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and b"turn_end" not in (
        pair.events("serve").read_bytes() if pair.events("serve").exists() else b""
    ):
        time.sleep(0.05)
    sides[killed].kill()
    assert sides[left].wait(WAIT_S) == 5
    assert "the other side has ended" in pair.error(left)["message"]


@pytest.mark.parametrize("side", ["serve", "ask"])
def test_whoever_waits_can_be_stopped(pair: Pair, side: str) -> None:
    waiting = pair.start(side)
    time.sleep(0.5)
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(WAIT_S) == 128 + signal.SIGTERM


def test_an_address_in_use_is_told(pair: Pair) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", pair.port))
        taken.listen()
        assert pair.start("serve").wait(WAIT_S) == 5
    assert "in use" in pair.error("serve")["message"]


def test_a_name_is_no_address(pair: Pair) -> None:
    peer = RequestPeer(address="board.local", port=pair.port, token="secret")
    assert pair.start("ask", ask=peer).wait(WAIT_S) == 4
    assert "expected an IP address, got board.local" in pair.error("ask")["message"]


# -- as targets -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshLink]:
    folder = tmp_path_factory.mktemp("sshd")
    server, key = Sshd(folder / "server"), make_key(folder / "key")
    server.allow(key)
    known = folder / "known_hosts"
    known.write_text(server.known)
    server.start()
    route = Route("board", "127.0.0.1", server.port, USER, (key,), (known,), keys_alone=True)
    link = SshLink("board", lambda: route)
    yield link
    link.close()
    server.stop()


@dataclass(frozen=True)
class Both:
    """This machine, which asks, and a board, which answers."""

    near: HostTarget
    far: RemoteTarget
    bundle: Artifact
    folder: Path
    port: int

    def target(self, **meeting: Any) -> OffloadTarget:
        where = {"address": None, "listen": None, "port": self.port, **meeting}
        return OffloadTarget(self.near, self.far, self.bundle, Meeting(**where))

    def job(self, timeout_s: float = 60, **changes: Any) -> TrialJob:
        model = self.folder / "model"
        model.write_text("weights")
        digest = hashlib.sha256(b"weights").hexdigest()
        asked = Request(
            model="",
            context=256,
            threads=1,
            batch=16,
            max_tokens=8,
            ignore_eos=False,
            sampling=GREEDY,
            conversations=[["aa", "bb"], ["ww"]],
            warmup_tokens=0,
        ).model_copy(update=changes)
        (self.folder / "record").mkdir()
        weights = Artifact("m", "model", digest, digest, model, model, 7)
        return TrialJob(self.bundle, weights, asked, self.folder / "record", timeout_s)


@pytest.fixture
def both(link: SshLink, bundle: Artifact, port: int, tmp_path: Path) -> Iterator[Both]:
    near = HostTarget(HostOptions(kind="host", sandbox="bare"), disk=tmp_path, owner=f"test {tmp_path}")
    far = RemoteTarget(Shell(link), LinuxPlatform("linux"), str(tmp_path / "there"), reconnect_s=10)
    yield Both(near, far, bundle, tmp_path, port)
    assert (near.stop_strays(), far.stop_strays()) == (0, 0), "a trial leaves nothing behind"


def test_two_targets_are_one(both: Both) -> None:
    """At the address of the board's SSH link."""
    job, target = both.job(), both.target()
    target.deploy(job.bundle, job.model)
    result = target.run_trial(job)
    assert (result.exit_code, result.timed_out) == (0, False)
    here, there = (read_trace(job.folder / name) for name in (record.EVENTS, record.ENGINE_EVENTS))
    assert [turn.text for turn in here.turns] == ["bcdefghi", "cdefghij", "xyz"]
    assert [turn.token_ids for turn in here.turns] == [turn.token_ids for turn in there.turns]
    assert (job.folder / record.ENGINE_LOG).is_file()
    written = json.loads((job.folder / record.REQUEST).read_text())
    assert written["ask"]["port"] == both.port and "serve" not in written
    assert target.identify().id == both.near.identify().id


def test_an_engine_that_fails_is_the_trials_failure(both: Both) -> None:
    """The board cannot do what it is asked; what asks does not wait for it for ever."""
    job, target = both.job(restore=True), both.target()
    target.deploy(job.bundle, job.model)
    began = time.monotonic()
    result = target.run_trial(job)
    assert time.monotonic() - began < 30
    failed = failure.of_result(result, job.folder, job.timeout_s, "runner", lambda: None)
    assert failed is not None and "writes no context to a file" in failed.detail


def test_a_side_that_cannot_ask_stops_the_engine(both: Both) -> None:
    job, target = both.job(timeout_s=3), both.target(address="192.0.2.1", listen="127.0.0.1")  # which leads nowhere
    target.deploy(job.bundle, job.model)
    result = target.run_trial(job)
    assert result.timed_out or result.exit_code != 0


def test_an_address_that_nobody_knows(both: Both) -> None:
    job, target = both.job(), both.target(address="board.invalid")
    with pytest.raises(TargetError, match="no address of 'board.invalid'"):
        target.run_trial(job)


def test_a_target_without_an_address_is_asked_for_one(both: Both) -> None:
    target = OffloadTarget(both.far, both.near, both.bundle, Meeting(None, None, both.port))
    with pytest.raises(TargetError, match="says of no address") as raised:
        target.run_trial(both.job())
    assert raised.value.hint == "name it: offload.address"
