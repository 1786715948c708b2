"""On which CPUs programs run: asked for by `taskset`, believed only after the kernel was asked."""

from __future__ import annotations

import time
from collections.abc import Sequence

from meltrepro.errors import TargetError
from meltrepro.targets.base import TriedSetting
from meltrepro.targets.remote.options import cpus
from meltrepro.targets.remote.shell import Shell

_RUNNER = "melt-runner"
_STARTS_WITHIN_S = 5.0
_PAUSE_S = 0.1
_AGAIN_S = 1.0
_ONLINE = "/sys/devices/system/cpu/online"
_FIND = "command -v taskset"
# Every thread of the job's runner, which is the child of its supervisor; nothing where it is not there (yet, or any more).
_THREADS = """
read -r supervisor < "$1/supervisor" || exit 0
for process in /proc/[0-9]*; do
    read -r name < "$process/comm" && [ "$name" = "$2" ] || continue
    while read -r key value; do
        [ "$key" = PPid: ] && break
    done < "$process/status"
    [ "$value" = "$supervisor" ] || continue
    for thread in "$process"/task/*; do
        while read -r key value; do
            [ "$key" = Cpus_allowed_list: ] && echo "$value"
        done < "$thread/status"
    done
done 2>/dev/null
exit 0
"""


def confining(shell: Shell, cores: str) -> Sequence[str]:
    """What to put before a program's command to confine it to these CPUs; raises `TargetError`, `TargetLost`."""
    found = shell.expect(shell.script(_FIND), "find taskset, by which programs are confined to CPUs")
    return [found.text, *_mask(cores)]


def _mask(cores: str) -> Sequence[str]:
    return [f"{sum(1 << cpu for cpu in cpus(cores)):x}"]


def require(shell: Shell, job: str, cores: str, program: str = _RUNNER) -> None:
    """See that every thread of a job's program is confined to these CPUs; raises `TargetError` where one is not.

    A program that has ended meanwhile has other troubles.
    """
    _require(shell, job, cores, program)
    time.sleep(_AGAIN_S)  # by now it has all its threads
    _require(shell, job, cores, program)


def _require(shell: Shell, job: str, cores: str, program: str) -> None:
    until = time.monotonic() + _STARTS_WITHIN_S
    while True:
        found = shell.expect(shell.script(_THREADS, job, program), "read the CPUs of the runner").text.split()
        if found:
            break
        if shell.run(["test", "-f", f"{job}/status"]).status == 0:
            return
        if time.monotonic() > until:
            raise TargetError(f"{shell.link.name}: does not show on which CPUs the runner runs")
        time.sleep(_PAUSE_S)
    wrong = [each for each in found if _cpus(each) != cpus(cores)]
    if wrong:
        raise TargetError(
            f"{shell.link.name}: the runner was to run on CPUs {cores}, and runs on {', '.join(sorted(set(wrong)))}",
            hint="the device confines programs of the shell to other CPUs; see: meltrepro devices probe",
        )


def try_out(shell: Shell) -> TriedSetting:
    """Whether a program can be confined to the last CPU that is online."""
    online = shell.run(["cat", _ONLINE]).text
    known = _cpus(online)
    if not known:
        return TriedSetting("cores", None, None, f"the device does not tell its CPUs: {online[:80]!r}")
    last = str(max(known))
    reply = shell.run(["taskset", *_mask(last), "grep", "Cpus_allowed_list", "/proc/self/status"])
    found = reply.text.partition(":")[2].strip()
    if reply.status == 0 and _cpus(found) == {max(known)}:
        return TriedSetting("cores", online, last)
    return TriedSetting("cores", online, None, f"asked for CPU {last}, got {found or reply.err.strip()[:100]!r}")


def _cpus(text: str) -> frozenset[int]:
    try:
        return cpus(text)
    except ValueError:
        return frozenset()
