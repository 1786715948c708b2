"""One campaign per device: a lock between processes, which the kernel releases however its holder ends."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from meltrepro.errors import DeviceBusy, StoreError


def lock_path(run: Path, device_id: str) -> Path:
    """The lock file of a device below the folder `Settings.run`."""
    return run / "devices" / (re.sub(r"[^A-Za-z0-9._-]", "_", device_id) + ".lock")


@contextmanager
def hold(path: Path, campaign: str) -> Iterator[None]:
    """Hold a device's lock while the block runs; `campaign` is told to whoever asks meanwhile.

    Raises `DeviceBusy`, which names the holder, and `StoreError` where the lock file cannot be written.
    """
    holder = path.with_suffix(".json")
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise DeviceBusy(
            f"another campaign is measuring on this device: {_describe(holder)}",
            hint="wait until it is done, or stop it; two at once would disturb each other",
        ) from None
    except OSError as error:
        raise StoreError(f"cannot write the device lock {path}: {error.strerror}") from error
    try:
        try:
            holder.write_text(json.dumps({"pid": os.getpid(), "campaign": campaign}), encoding="utf-8")
        except OSError as error:
            raise StoreError(f"cannot write {holder}: {error.strerror}") from error
        yield
    finally:
        try:
            holder.unlink(missing_ok=True)
        finally:
            lock.release()


def _describe(holder: Path) -> str:
    try:
        known = json.loads(holder.read_text(encoding="utf-8"))
        return f"{known['campaign']} (process {known['pid']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "it has only just begun"
