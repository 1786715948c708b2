"""A lab of many hosts on one machine: a real head, real nodes, each a process with folders, locks and a device of its own."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import distributed
import pytest
import yaml

import meltrepro.workflow.labs  # what forks of the server need not import again
from meltrepro.cli.app import main
from meltrepro.record.reader import campaign_folders, read_outcome
from meltrepro.targets.base import device_id
from meltrepro.targets.host import target as host
from tests.fault import project as projects
from tests.support.forks import Fork

assert distributed.__version__ and meltrepro.workflow.labs
NAMES = ("one", "two", "three")


def head_main(folder: str, port: int, arguments: list[str]) -> int:
    """`meltrepro lab head`, below a folder."""
    with projects.standing_in(Path(folder)):
        return main(["lab", "head", "--port", str(port), "--dashboard", "0", *arguments])


def node_main(folder: str, name: str, head: str, token: str, arguments: list[str]) -> int:
    """`meltrepro lab node`, for a machine that is another one by its id."""
    Path(folder).mkdir(exist_ok=True)
    (Path(folder) / "devices.yaml").write_text(json.dumps({"targets": {"host": {"kind": "host", "sandbox": "bare"}}}))
    with projects.standing_in(Path(folder)), pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "host_id", lambda root=Path("/"): device_id("host", name))
        devices = ["--devices", str(Path(folder) / "devices.yaml")]
        return main(["lab", "node", head, "--token", token, "--name", name, *devices, *arguments])


def client_main(folder: str, arguments: list[str]) -> int:
    """Any command of a user of the lab."""
    with projects.standing_in(Path(folder)):
        return main(arguments)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Lab:
    """Head and nodes, which can be killed and started again one by one."""

    folder: Path
    """That of the project of whoever uses it; head and nodes have folders below it."""
    port: int = field(default_factory=free_port)
    programs: dict[str, Fork] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    @property
    def token(self) -> Path:
        return self.folder / "head" / "home" / "lab" / "token"

    def head(self) -> None:
        (self.folder / "head").mkdir(exist_ok=True)
        self._start("head", head_main, str(self.folder / "head"), self.port, [])
        wait_for(lambda: self.token.exists() and is_open(self.port))

    def node(self, name: str, *arguments: str, token: Path | None = None) -> Fork:
        given = (str(self.folder / name), name, self.address, str(token or self.token), list(arguments))
        return self._start(name, node_main, *given)

    def run(self, spec: Path, *arguments: str) -> Fork:
        """`meltrepro run` on the lab."""
        options = ["--lab", self.address, "--token", str(self.token), "--no-track", "--json"]
        return self._start("client", client_main, str(self.folder), ["run", str(spec), *options, *arguments])

    def ask(self, *arguments: str) -> tuple[int, str, str]:
        """Another command of `lab`: its exit code and what it said."""
        command, *rest = arguments
        program = Fork(client_main, str(self.folder), ["lab", command, self.address, *rest, "--token", str(self.token)])
        out, err = program.communicate(timeout=30)
        return program.wait(), out, err

    def status(self) -> dict[str, Any]:
        code, out, err = self.ask("status", "--json")
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def kill(self, name: str) -> None:
        self.programs[name].kill()
        self.programs[name].communicate()

    def records(self, name: str, campaign: str) -> Counter[str]:
        """How many records a node has of each trial of a campaign."""
        root = self.folder / name / "home" / "lab" / "trials" / campaign
        found = (path.parent.relative_to(root) for path in root.rglob("outcome.json"))
        return Counter(str(path).rpartition("-")[0] for path in found)

    def _start(self, name: str, program: Callable[..., int], *arguments: object) -> Fork:
        self.programs[name] = Fork(program, *arguments)
        return self.programs[name]

    def close(self) -> None:
        for program in self.programs.values():
            program.send_signal(signal.SIGCONT)
            program.send_signal(signal.SIGTERM)
        for program in self.programs.values():
            try:
                program.wait(timeout=15)
            except Exception:
                program.kill()
            program.stdout.close()
            program.stderr.close()


@contextmanager
def lab_of(folder: Path, names: tuple[str, ...] = NAMES) -> Iterator[Lab]:
    """A lab that is up, with these nodes."""
    lab = Lab(folder)
    try:
        lab.head()
        for name in names:
            lab.node(name)
        wait_for(lambda: sum(each["there"] for each in lab.status()["devices"]) == len(names))
        yield lab
    finally:
        lab.close()


def manifest(folder: Path, orders: dict[str, str], repetitions: int, hosts: int = 3, **changes: Any) -> Path:
    """A manifest for a pool of hosts, in a project's folder."""
    pool = {"kind": "host", "threads": 1, "sandbox": "bare", "any": hosts, "where": changes.pop("where", {})}
    content = projects.small(changes.pop("name", "pooled"), orders, targets={"pool": pool})
    content["protocol"] = {"repetitions": repetitions, "warmups": 0, "timeout_s": 30, **changes}
    path = folder / "spec" / f"{content['name']}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def check_once(lab: Lab, name: str, trials: int, names: tuple[str, ...] = NAMES) -> None:
    """One campaign of that name with every trial once, and no trial with a record at two nodes or two of one."""
    (folder,) = (each for each in campaign_folders(lab.folder / "home" / "records") if f"-{name}-" in each.name)
    assert json.loads((folder / "campaign.json").read_text())["finished_wall_ns"] is not None
    found = [path.parent for path in folder.rglob("outcome.json")]
    assert len(found) == len(set(found)) == trials
    for path in found:
        outcome = read_outcome(path)
        assert outcome is not None
        assert (outcome.state, outcome.attempt) == ("ok", 1)
        assert (path / "events.jsonl").read_text().count('"done"') == 1
    made = sum((lab.records(node, folder.name) for node in names), Counter[str]())
    assert set(made.values()) == {1}
    assert len(made) == trials


def wait_for(true: Callable[[], object], timeout_s: float = 30.0) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.05)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ended(program: Fork, timeout_s: float = 90.0) -> tuple[int, dict[str, Any]]:
    """How `meltrepro run --json` ended: its exit code and what it said."""
    out, err = program.communicate(timeout=timeout_s)
    assert out.strip(), err
    answer: dict[str, Any] = json.loads(out)
    return program.wait(), answer
