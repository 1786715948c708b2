"""A campaign without models: real state machine, real processes, real files; only the runner is a script.

Each cell's prompt is an order to the script (`SCRIPT`). As a program (`python rig.py HOME SPEC.json`) it conducts the
campaign as `meltrepro run` does, prints the tally as JSON and exits with the code of the error, if there is one.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from meltrepro import interrupts
from meltrepro.build.model import Artifact, Engine, RecipeSource
from meltrepro.campaign.conduct import CampaignResult, conduct
from meltrepro.campaign.setup import Setup
from meltrepro.errors import MeltreproError
from meltrepro.frameworks.base import Release, Variant
from meltrepro.manifest.schema import Manifest
from meltrepro.plan.model import BundleNode, Cell, Costs, ModelNode, Plan
from meltrepro.record.ids import ModelId
from meltrepro.record.trial import Request, RequestSampling
from meltrepro.settings import Settings
from meltrepro.steps import Sink, silent
from meltrepro.targets import registry
from meltrepro.targets.base import Target
from meltrepro.targets.device_lock import lock_path
from meltrepro.targets.host.options import HostOptions
from meltrepro.targets.host.target import HostTarget

VARIANT = Variant("any", "any", "x86_64-linux-musl", "musl")
RECIPE = RecipeSource("f", {}, {}, {}, VARIANT.triple)
RELEASE = Release("1", "0" * 40, "2026-01-01", {})

SCRIPT = '''#!{python} -IS
"""Stands in for a runner: obeys the first prompt of its request."""
import json, os, signal, socket, stat, subprocess, sys, time
from urllib.parse import unquote_to_bytes
request = json.load(open(sys.argv[1]))
order = request["conversations"][0][0].split()
paced_ns, pace_ns, pace_s, slowdown = 0, 0, 0.0, 1.0
events = open(sys.argv[2], "w")
def plant(what, name):
    """Leave something in the record, in place of what is there."""
    folder, victim = os.path.dirname(os.path.abspath(sys.argv[1])), os.path.abspath(__file__) + ".victim"
    path = os.path.join(os.fsencode(folder), unquote_to_bytes(name))
    if os.path.lexists(path):
        os.unlink(path)
    match what:
        case "link":
            os.symlink(os.fsencode(victim), path)
        case "hard-link":
            os.link(os.fsencode(victim), path)
        case "pipe":
            os.mkfifo(path)
        case "socket":
            os.chdir(os.path.dirname(path))  # the path of a socket is short
            socket.socket(socket.AF_UNIX).bind(os.path.basename(path))
        case "device":
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        case "folder":
            os.mkdir(path)
            os.chdir(path)
            for _ in range(1500):
                os.mkdir("x" * 20)
                os.chdir("x" * 20)
        case "endless":
            with open(path, "wb") as file:
                file.truncate(1 << 40)
        case "crowd":
            for number in range(3000):
                open(path + b"%d" % number, "wb").close()
        case "file" | "closed" | "set-uid":
            open(path, "wb").close()
            os.chmod(path, {{"file": 0o644, "closed": 0, "set-uid": 0o4755}}[what])
def event(e, **more):
    events.write(json.dumps({{"t": paced_ns or time.monotonic_ns(), "e": e, **more}}) + "\\n")
    events.flush()
event("hello", v=1, runner="rig", framework="f", commit="0", isa="any", wall=time.time_ns(), pid=os.getpid(), system="")
event("load_begin")
event("load_end", model_bytes=4, n_params=1, n_vocab=1, n_ctx_train=64)
event("context", n_ctx=64, n_batch=8, threads=1, kv_bytes=8)
match order:
    case ["sleep", seconds]:
        time.sleep(float(seconds))
    case ["pace", milliseconds]:
        pace_s = float(milliseconds) / 1000
    case ["pace-on-paper", milliseconds]:
        # No load of the machine changes such a speed; a percent of noise, from trial to trial.
        paced_ns = time.monotonic_ns()
        pace_ns = round(float(milliseconds) * 1e6 * slowdown * (1 + (os.getpid() % 7 - 3) / 300))
    case ["hang"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # Children that would outlive it: one in its group, one in a session of its own.
        subprocess.Popen(["/bin/sleep", "1000"])
        subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
        time.sleep(1000)
    case ["leave-children"]:
        subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
    case ["exit", status]:
        event("error", code="broken", message="as ordered \\x1b[31m")
        print("first line", "last line", sep="\\n", file=sys.stderr)
        sys.exit(int(status))
    case ["signal", number]:
        os.kill(os.getpid(), int(number))
    case ["signal-once", number]:
        flag = os.path.join(os.path.dirname(os.path.abspath(__file__)), "signalled")
        if not os.path.exists(flag):
            open(flag, "w").close()
            os.kill(os.getpid(), int(number))
    case ["scratch", number]:
        os.makedirs("scratch/kernels/closed")
        os.symlink("/bin/sh", "scratch/kernels/link")
        os.chmod("scratch/kernels/closed", 0)
        if number != "0":
            os.kill(os.getpid(), int(number))
    case ["truncate"]:
        events.write('{{"t": 1, "e": "do')
        sys.exit(0)
    case ["forget"]:
        sys.exit(0)
    case ["plant", what, name]:
        plant(what, name)
    case ["plant-once", what, name]:
        flag = os.path.abspath(__file__) + ".planted"
        if os.path.exists(flag):
            sys.exit(3)
        open(flag, "w").close()
        plant(what, name)
        time.sleep(1000)
    case ["eat"]:
        eaten = [bytearray(1 << 20) for _ in range(1000)]
    case ["fill"]:
        try:
            while True:
                events.write("x" * 65536)
                events.flush()
        except OSError:
            os._exit(6)
said = ["x"]
if order[:1] == ["say"]:  # what the first line of each question says, | being a new line
    said = [talk[0].partition("say ")[2].splitlines()[0].replace("|", "\\n") for talk in request["conversations"]]
for c, text in enumerate(said):
    event("conversation_begin", c=c)
    event("turn_begin", c=c, i=0)
    event("prefill_begin", n=2)
    event("prefill_end")
    for i in range(3):
        event("token", i=i, id=i)
        time.sleep(pace_s)
        paced_ns += pace_ns
    event("turn_end", c=c, i=0, n_prompt=2, n_gen=3, n_past=5, stop="length", text=text)
    event("conversation_end", c=c)
if order != ["no-memory"]:
    event("mem", phase="turn", rss_anon=1, rss_file=1, hwm=2, swap=0)
event("done")
'''


@dataclass(frozen=True)
class Spec:
    """What a rig runs: orders by cell name, and the protocol."""

    orders: dict[str, str]
    protocol: dict[str, Any]
    devices: list[str] = field(default_factory=lambda: ["host"])
    """Names; all but `host` are boards that run on this machine, and are taken for other machines."""

    def text(self) -> str:
        return json.dumps({"orders": self.orders, "protocol": self.protocol, "devices": self.devices})


def settings(folder: Path) -> Settings:
    """Everything below one folder."""
    return Settings(folder / "cache", folder / "home", offline=True, mirrors=None, jobs=1)


def script_bundle(folder: Path) -> Artifact:
    """A bundle whose runner is the script."""
    runner = folder / "bundle" / "bin" / "melt-runner"
    if not runner.exists():
        runner.parent.mkdir(parents=True, exist_ok=True)
        runner.write_text(SCRIPT.format(python=sys.executable))
        runner.chmod(0o755)
    return artifact("f/run/any", "bundle", folder / "bundle")


def artifact(id: str, kind: Literal["bundle", "model"], path: Path) -> Artifact:
    """An artifact that was never built."""
    digest = hashlib.sha256(id.encode()).hexdigest()
    return Artifact(id=id, kind=kind, key=digest, digest=digest, file=path, path=path, size=4)


def make_setup(folder: Path, spec: Spec, engine: Engine | None = None, bundle: Artifact | None = None) -> Setup:
    """A setup with one workload per order on this host, as plain processes or in containers of an engine."""
    bundle = bundle or script_bundle(folder)
    (folder / "model").write_bytes(b"GGUF")
    manifest = Manifest.model_validate(
        {
            "meltrepro": 1,
            "name": "rig",
            "models": {
                "m": {"source": {"file": "model"}, "chat_template": "plain", "quantizations": ["as-is"]},
                "spare": {
                    "source": {"url": "https://user:secret@models.example/x.gguf?token=secret", "digest": "0" * 64},
                    "chat_template": "plain",
                    "quantizations": ["as-is"],
                },
            },
            "frameworks": {"f": {"release": "1"}},
            "targets": {
                name: {"kind": "host", "threads": 1, "sandbox": "container" if engine else "bare"}
                for name in spec.devices
            },
            "workloads": {name: {"conversations": [[order]]} for name, order in spec.orders.items()},
            "protocol": spec.protocol,
            "tracking": {"uri": "https://user:secret@tracking.example/x?token=secret"},
        }
    )
    cells = tuple(
        Cell(
            *("m", "as-is", "f", device, name),
            manifest.models["m"],
            manifest.targets[device],
            workload,
            "f",
            VARIANT,
            {},
            ModelId("m", "as-is", "f"),
        )
        for device in spec.devices
        for name, workload in manifest.workloads.items()
    )
    run, model = (
        BundleNode("f", "f", RELEASE, VARIANT, "run", RECIPE),
        ModelNode("m", "as-is", "f", manifest.models["m"].source, "f", ()),
    )
    plan = Plan(manifest, cells, (), (run,), (model,), Costs(None, None, {}))
    targets = {name: _open(name, manifest, folder, engine) for name in spec.devices}
    facts = {name: target.identify() for name, target in targets.items()}
    sampling = RequestSampling(
        greedy=True, temperature=1, top_k=0, top_p=1, repeat_penalty=1, repeat_last_n=0, seed=manifest.protocol.seed
    )
    return Setup(
        plan=plan,
        artifacts={run.id: bundle, model.id: artifact(model.id, "model", folder / "model")},
        requests={
            cell.id: Request(
                model="",
                context=64,
                threads=1,
                batch=8,
                max_tokens=4,
                ignore_eos=True,
                sampling=sampling,
                conversations=[[spec.orders[cell.workload_name]]],
            )
            for cell in cells
        },
        targets=targets,
        devices={
            name: known if name == "host" else replace(known, id=name, kind="board", here=False)
            for name, known in facts.items()
        },
        engine="none",
        lock_text=f"lock: 1\nmanifest: {'0' * 64}\n",
        builds={run.id: {"build.log": b"built\n", "Dockerfile": b"FROM scratch\n"}},
    )


@dataclass(frozen=True)
class GivenEngine:
    """An engine that runs already."""

    given: Engine

    @property
    def engine_name(self) -> str:
        return self.given.name

    def engine(self) -> Engine:
        return self.given


def _open(name: str, manifest: Manifest, folder: Path, engine: Engine | None) -> Target:
    here = settings(folder)
    if name == "host":
        return registry.open_target(manifest.targets[name], here, GivenEngine(engine) if engine else None)
    entry = manifest.targets[name]
    assert isinstance(entry, HostOptions)
    return HostTarget(entry, disk=here.cache, owner=str(lock_path(name)))


def with_manifest(setup: Setup, manifest: Manifest) -> Setup:
    """The same setup under another manifest."""
    return replace(setup, plan=replace(setup.plan, manifest=manifest))


def run(folder: Path, spec: Spec, sink: Sink = silent, *, new: bool = False, fail_fast: bool = False) -> CampaignResult:
    """Conduct the campaign in this process."""
    return run_setup(folder, make_setup(folder, spec), sink, new=new, fail_fast=fail_fast)


def run_setup(
    folder: Path, setup: Setup, sink: Sink = silent, *, new: bool = False, fail_fast: bool = False
) -> CampaignResult:
    """Conduct a campaign that was set up by hand."""
    return conduct(setup, settings(folder), sink, new=new, fail_fast=fail_fast)


def report(conduct_it: Callable[[Sink], CampaignResult]) -> int:
    """Conduct a campaign as a command does: steps on standard output, then the tally or the error as JSON."""
    try:
        with interrupts.raising():
            result = conduct_it(lambda step: print(step.name, step.phase, step.subject, flush=True))
    except MeltreproError as error:
        print(json.dumps({"error": type(error).__name__, "message": error.message, "hint": error.hint}), flush=True)
        return error.exit_code
    tally = result.tally
    answer = {
        "folder": str(result.campaign.folder),
        "resumed": result.campaign.resumed,
        "ok": tally.ok,
        "failed": [str(failure) for _, failure in tally.failed],
        "earlier": tally.earlier,
        "left": tally.left,
    }
    print(json.dumps(answer), flush=True)
    return 0


def main(folder: str, spec: str) -> int:
    """The program: a campaign of plain processes."""
    return report(lambda sink: run(Path(folder), Spec(**json.loads(spec)), sink))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
