"""Plays the runner app on a virtual iPhone: `runner_app.py RUNNER`, started by the phone as an app is.

It keeps to what images/ios/App does: the folder of the job from the environment, `started` first, logs, a deadline of its
own, samples where a plan asks for them, `status.json` last. It is run by its path and needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

THERMAL = "MELTREPRO_LAB_THERMAL"
"""Environment of every app of a virtual iPhone: the file that says how hot the phone is."""
_DEADLINE_EXIT = 128 + signal.SIGKILL
_LIMIT_BYTES = 3 << 30
"""What the app may use, it believes."""


def main(runner: str) -> int:
    """Work on the job of the environment; without one, wait as an app does that somebody has only opened."""
    name = os.environ.get("MELTREPRO_JOB")
    if name is None:
        time.sleep(3600)
        return 0
    job = Path.home() / "Documents" / name
    try:
        (job / "started").touch(exist_ok=False)
    except FileExistsError:
        return 3
    os.chdir(job)
    code, timed_out = _run(runner, float(os.environ["MELTREPRO_TIMEOUT_S"]))
    Path("status.part").unlink(missing_ok=True)
    with Path("status.part").open("x", encoding="utf-8") as file:  # through nothing that the runner has put there
        json.dump({"exit": code, "timed_out": timed_out}, file)
    Path("status.part").rename("status.json")
    return code


def _run(runner: str, limit_s: float) -> tuple[int, bool]:
    plan = _plan()
    with Path("stdout.log").open("xb") as out, Path("stderr.log").open("x+b") as err:
        try:
            command = [*_confined(runner), runner, "request.json", "events.jsonl"]
            process = subprocess.Popen(command, stdout=out, stderr=err)
        except OSError as error:
            err.write(f"{error.filename}: {error.strerror}\n".encode())
            return 126, False
        over = threading.Event()
        sampler = threading.Thread(target=_sample, args=(plan, process.pid, over))
        sampler.start()
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return _DEADLINE_EXIT, True
        finally:
            over.set()
            sampler.join()
        err.seek(0)
        if status == 127 or (status == 1 and err.read(7) == b"bwrap: "):
            return 126, False  # bubblewrap could not start it, or a shell in its place
    return (status if status >= 0 else 128 - status), False


def _confined(runner: str) -> list[str]:
    """What shows a program the phone's files and no others that it could change, and no network, as a phone does."""
    system = [part for name in ("/usr", "/bin", "/lib", "/lib64") for part in ("--ro-bind-try", name, name)]
    return [
        *("bwrap", "--unshare-all", "--unshare-user", "--die-with-parent", "--cap-drop", "ALL", *system),
        *("--dev", "/dev", "--proc", "/proc", "--remount-ro", "/proc", "--bind", str(Path.home()), str(Path.home())),
        *("--ro-bind", runner, runner, "--chdir", str(Path.cwd()), "--remount-ro", "/", "--"),
    ]


def _plan() -> dict[str, Any] | None:
    """What is to be sampled, read before the runner can put anything in its place."""
    try:
        plan: dict[str, Any] = json.loads(Path("sampling.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return plan


def _sample(plan: dict[str, Any] | None, sandbox: int, over: threading.Event) -> None:
    if plan is None:
        return
    readers: Mapping[str, Callable[[], float | None]] = {
        "app/footprint": lambda: _footprint(_inside(sandbox)),
        "app/available": lambda: (
            None if (used := _footprint(_inside(sandbox))) is None else max(0.0, _LIMIT_BYTES - used)
        ),
        "app/thermal_state": _thermal_state,
    }
    channels = [(readers.get(channel["path"]), max(1, int(channel["every"]))) for channel in plan["channels"]]
    sweep = 0
    with Path("samples.jsonl").open("x", encoding="utf-8") as file:
        file.write(json.dumps(plan["header"]) + "\n")
        while True:
            for index, (read, every) in enumerate(channels):
                value = read() if read is not None and sweep % every == 0 else None
                if value is not None:
                    file.write(json.dumps([time.monotonic_ns(), index, value]) + "\n")
            file.flush()
            sweep += 1
            if over.wait(1 / plan["rate_hz"]):
                break
        file.write(json.dumps({"end": time.monotonic_ns(), "cpu_s": time.thread_time()}) + "\n")


def _inside(sandbox: int) -> int:
    """The process that a sandbox was made for: the first child of its first process."""
    pid = sandbox
    for _ in range(2):
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        except OSError:
            break
        pid = int(children[0]) if children else pid
    return pid


def _footprint(pid: int) -> float | None:
    """Memory that a process has written to; `None` where it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    sizes = [line.split()[1] for line in text.splitlines() if line.startswith(("RssAnon:", "RssShmem:", "VmSwap:"))]
    return 1024.0 * sum(map(int, sizes)) if sizes else None


def _thermal_state() -> float | None:
    try:
        return float(Path(os.environ[THERMAL]).read_text(encoding="utf-8"))
    except (OSError, KeyError, ValueError):
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
