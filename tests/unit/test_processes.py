"""Programs that run beside a trial."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from meltrepro import processes

DEAF = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as the first process of a namespace, before it has a handler
pathlib.Path(sys.argv[1], "deaf").touch()
while not pathlib.Path(sys.argv[1], "listen").exists():
    time.sleep(0.01)
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
while not ended:
    time.sleep(0.01)
pathlib.Path(sys.argv[1], "ended").touch()
"""


def test_what_does_not_listen_yet_is_asked_again(tmp_path: Path) -> None:
    """It ends by itself, and nobody waits until it has to be killed."""
    program = tmp_path / "deaf.py"
    program.write_text(DEAF)
    listen = "import pathlib, sys, time; time.sleep(1); pathlib.Path(sys.argv[1], 'listen').touch(); time.sleep(60)"
    argv = [sys.executable, "-IS", str(program), str(tmp_path)]
    with (
        processes.beside([sys.executable, "-ISc", listen, str(tmp_path)], log=None, owner=f"{tmp_path}#other"),
        processes.beside(argv, log=None, owner=str(tmp_path)),
    ):
        while not (tmp_path / "deaf").exists():
            time.sleep(0.01)
    assert (tmp_path / "ended").exists()
