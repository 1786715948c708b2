"""Stands in for the runner app on a virtual iPhone: `iphone_app.py RUNNER`, started by the phone as an app is.

It keeps to what images/ios/App does: the folder of the job from the environment, `started` first, logs, a deadline of its
own, samples where a plan asks for them, `status.json` last.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

DEADLINE_EXIT = 128 + signal.SIGKILL


def main(runner: str) -> int:
    name = os.environ.get("MELTREPRO_JOB")
    if name is None:
        time.sleep(3600)  # an app that somebody has only opened
        return 0
    job = Path.home() / "Documents" / name
    try:
        (job / "started").touch(exist_ok=False)
    except FileExistsError:
        return 3
    os.chdir(job)
    over = threading.Event()
    sampler = threading.Thread(target=sample, args=(over,))
    sampler.start()
    code, timed_out = run(runner, float(os.environ["MELTREPRO_TIMEOUT_S"]))
    over.set()
    sampler.join()
    Path("status.part").write_text(json.dumps({"exit": code, "timed_out": timed_out}))
    Path("status.part").rename("status.json")
    return code


def run(runner: str, limit_s: float) -> tuple[int, bool]:
    with Path("stdout.log").open("wb") as out, Path("stderr.log").open("wb") as err:
        try:
            process = subprocess.Popen([runner, "request.json", "events.jsonl"], stdout=out, stderr=err)
        except OSError as error:
            err.write(f"{runner}: {error.strerror}\n".encode())
            return 126, False
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return DEADLINE_EXIT, True
        return (status if status >= 0 else 128 - status), False


def sample(over: threading.Event) -> None:
    try:
        plan = json.loads(Path("sampling.json").read_text())
    except FileNotFoundError:
        return
    paths = [channel["path"] for channel in plan["channels"]]
    with Path("samples.jsonl").open("w") as file:
        file.write(json.dumps(plan["header"]) + "\n")
        while not over.wait(1 / plan["rate_hz"]):
            value = 4096.0 * int(Path("/proc/self/statm").read_text().split()[1])
            file.write(json.dumps([time.monotonic_ns(), paths.index("app/footprint"), value]) + "\n")
        file.write(json.dumps({"end": time.monotonic_ns(), "cpu_s": time.process_time()}) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
