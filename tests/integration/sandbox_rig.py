"""The rig of the fault tests with real engines: its runner is a static program, its place a sandbox."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from meltrepro import settings as settings_module
from meltrepro.build.daemon import connect
from meltrepro.build.docker_engine import DockerEngine
from meltrepro.build.model import Artifact, Engine
from meltrepro.build.process_engine import ProcessEngine
from meltrepro.campaign.conduct import CampaignResult
from meltrepro.steps import Sink, silent
from meltrepro.store.cas import Store
from tests.fault import rig

SOURCE = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Stands in for a runner: obeys the first prompt of its request. */
int main(int argc, char** argv) {
    static char text[65536];
    FILE* request = fopen(argv[1], "r");
    FILE* events = fopen(argv[2], "w");
    if (argc != 3 || !request || !events) return 6;
    text[fread(text, 1, sizeof text - 1, request)] = 0;
    long t = 1;
    fprintf(events,
        "{\"t\":%ld,\"e\":\"hello\",\"v\":1,\"runner\":\"rig\",\"framework\":\"f\",\"commit\":\"0\",\"isa\":\"any\","
        "\"wall\":1,\"pid\":1,\"system\":\"\"}\n{\"t\":%ld,\"e\":\"load_begin\"}\n"
        "{\"t\":%ld,\"e\":\"load_end\",\"model_bytes\":4,\"n_params\":1,\"n_vocab\":1,\"n_ctx_train\":1}\n"
        "{\"t\":%ld,\"e\":\"context\",\"n_ctx\":64,\"n_batch\":8,\"threads\":1,\"kv_bytes\":1}\n"
        "{\"t\":%ld,\"e\":\"mem\",\"phase\":\"end\",\"rss_anon\":1,\"rss_file\":1,\"hwm\":2,\"swap\":0}\n",
        t, t, t, t, t);
    fflush(events);
    if (strstr(text, "hang")) { signal(SIGTERM, SIG_IGN); if (fork() >= 0) for (;;) pause(); }
    if (strstr(text, "segfault")) *(volatile int*)0 = 1;
    char* target = strstr(text, "plant-");
    if (target) {
        target[strcspn(target, "\"")] = 0;
        unlink("/record/stdout.log");
        if (strstr(target, "-link ") && symlink(strchr(target, ' ') + 1, "/record/stdout.log")) return 7;
        if (strstr(target, "-folder ") && mkdir("/record/stdout.log", 0777)) return 7;
        if (strstr(target, "-pipe ") && mkfifo("/record/stdout.log", 0666)) return 7;
    }
    if (strstr(text, "hide the log")) {
        unlink("/record/stderr.log");
        return mkfifo("/record/stderr.log", 0666) ? 7 : 1;
    }
    if (strstr(text, "exit 3")) { fprintf(stderr, "last line\n"); return 3; }
    usleep(100000);
    fprintf(events, "{\"t\":%ld,\"e\":\"done\"}\n", t + 1);
    return fclose(events);
}
"""


ENGINES = ("docker", "process")


def engine(name: str, folder: Path) -> Engine:
    """An engine of this machine; raises `EngineError` where it does not answer."""
    if name == "docker":
        return DockerEngine(connect(settings_module.load()), list, 1, silent)
    return ProcessEngine(list, Store(folder / "cache/store"), 1, silent)


def static_bundle(
    folder: Path, programs: Mapping[str, str | bytes] | None = None, flags: Sequence[str] = ()
) -> Artifact:
    """A bundle of static programs (name -> C source, or its bytes), the runner alone unless others are named; made once in a folder."""
    bundle, tar = folder / "bundle", folder / "bundle.tar"
    if not tar.exists():
        for name, source in (programs or {"melt-runner": SOURCE}).items():
            program = bundle / "bin" / name
            program.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                program.write_bytes(source)
                program.chmod(0o755)
                continue
            subprocess.run(
                ["gcc", "-static", *flags, "-x", "c", "-o", str(program), "-"],
                input=source.encode(),
                check=True,
                capture_output=True,
            )
        with tarfile.open(tar, "w") as archive:
            archive.add(bundle, "bundle")
    digest = hashlib.sha256(tar.read_bytes()).hexdigest()
    return Artifact("f/run/any", "bundle", digest, digest, tar, bundle, tar.stat().st_size, platform="x86_64")


def run(folder: Path, spec: rig.Spec, name: str, sink: Sink = silent) -> CampaignResult:
    """Conduct a campaign in sandboxes of an engine."""
    return rig.run_setup(folder, rig.make_setup(folder, spec, engine(name, folder), static_bundle(folder)), sink)


if __name__ == "__main__":
    home, orders, which = sys.argv[1:]
    sys.exit(rig.report(lambda sink: run(Path(home), rig.Spec(**json.loads(orders)), which, sink)))
