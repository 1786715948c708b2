"""Made-up entries of many devices, engines and models, and keys to sign them with."""

from __future__ import annotations

import hashlib
import math
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

from meltrepro.publish.entry import (
    CellReplay,
    MetricReplay,
    PublicBundle,
    PublicCampaign,
    PublicCell,
    PublicDevice,
    PublicDigests,
    PublicEntry,
    PublicFigure,
    PublicRepetitions,
    PublicReplay,
    PublicScore,
    Verdict,
    entry_bytes,
)
from meltrepro.publish.signature import SUFFIX, sign

DEVICES = (
    PublicDevice(kind="android", model="Pixel 9", facts={"arch": "aarch64", "cores": 8, "soc": "Tensor G4"}),
    PublicDevice(kind="jetson", model="Jetson Orin Nano", facts={"arch": "aarch64", "power_mode": "15W"}),
    PublicDevice(kind="host", model="AMD EPYC", facts={"arch": "x86_64", "cores": 16}),
    PublicDevice(kind="android", model="meltrepro Virtual Phone", virtual=True, facts={"arch": "aarch64"}),
)
MODELS = {"smollm2-135m": 1.35e8, "qwen3-0.6b": 6e8, "llama-3.2-1b": 1.2e9, "gemma-3-4b": 4e9}
QUANTIZATIONS = {"q4_0": 4.55, "q8_0": 8.5}
ENGINES = {"llama.cpp": "2026-10-01", "onnxruntime": "1.29.0", "mlc": "0.27.0"}


def digest(text: str) -> str:
    """A digest that is the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()


def figure(value: float, n: int = 5) -> PublicFigure:
    """A figure with an interval of two percent."""
    return PublicFigure(
        median=float(f"{value:.6g}"), low=float(f"{value * 0.98:.6g}"), high=float(f"{value * 1.02:.6g}"), n=n
    )


def cell(
    number: int = 1,
    *,
    model: str = "smollm2-135m",
    quantization: str = "q4_0",
    engine: str = "llama.cpp",
    device: int = 0,
    factor: float = 1.0,
    replay: CellReplay | None = None,
    synthetic: bool = False,
) -> PublicCell:
    """A cell whose figures follow from its size."""
    size = MODELS[model] * QUANTIZATIONS[quantization] / 8
    speed = factor * 1.5e10 / size
    return PublicCell(
        number=number,
        device=device,
        model=model,
        source=f"hf:someone/{model}",
        quantization=quantization,
        engine=engine,
        release=ENGINES[engine],
        commit="cb49e0f8c906e5da49e9f6d64a57742a9a241c6a",
        variant="armv8_2",
        workload="chat",
        synthetic=synthetic,
        verdict="VALID",
        repetitions=PublicRepetitions(asked=5, believed=5, invalid=0, failed=0),
        metrics={
            "generation_tps": figure(speed),
            "prefill_tps": figure(speed * 4),
            "ttft_ms": figure(2e4 / speed),
            "peak_memory_bytes": figure(size * 1.2),
            "energy_per_token_j": figure(6 / speed),
        },
        scores={}
        if synthetic
        else {"accuracy.piqa": PublicScore(value=round(0.5 + 0.05 * math.log10(size / 1e7), 4), n=100, right=66)},
        settings={"threads": 4, "kv_type": "f16"},
        effective={"effective.threads": 4, "effective.flash_attention": True},
        model_bytes=int(size),
        digests=PublicDigests(
            model=digest(f"{model}/{quantization}"),
            bundle=digest(engine),
            runner=digest(f"{engine} runner"),
            source=digest(f"{engine} source"),
            request=digest("request"),
        ),
        replay=replay,
    )


def entry(
    name: str = "first",
    cells: Sequence[PublicCell] = (),
    *,
    devices: Sequence[PublicDevice] = DEVICES[:1],
    replay: PublicReplay | None = None,
    bundle: bool = True,
) -> PublicEntry:
    """An entry of a record of this name."""
    return PublicEntry(
        meltrepro="0.1.0",
        campaign=PublicCampaign(
            record=digest(name),
            manifest=digest("manifest"),
            plan=digest("plan"),
            lock=digest("lock"),
            meltrepro="0.1.0",
            measured="2026-12-03",
            build_engine="docker",
            order="interleaved",
            seed=1,
            finished=True,
        ),
        replay=replay,
        bundle=PublicBundle(sha256=digest(f"{name}.melt"), bytes=12_345_678, url="https://example.org/it.melt")
        if bundle
        else None,
        devices=list(devices),
        settings={"context": 1024},
        effective={"process.nice": 0},
        cells=list(cells) or [cell()],
    )


def replay_of(name: str, by: str, verdict: Verdict = "REPRODUCED", number: int = 1) -> PublicEntry:
    """An entry of a replay of the first cell of a record."""
    metric = MetricReplay(verdict=verdict, ratio=1.01, low=0.99, high=1.03)
    replay = CellReplay(number=number, verdict=verdict, same_tokens=True, metrics={"generation_tps": metric})
    return entry(
        f"{name} by {by}",
        [cell(replay=replay)],
        replay=PublicReplay(record=digest(name), verdict=verdict, margin=0.05),
    )


def many(count: int, seed: int = 1) -> list[PublicEntry]:
    """Entries of two cells each, all of different records."""
    rng = random.Random(seed)
    found = []
    for place in range(count):
        device = rng.choice(DEVICES)
        speed = {"Pixel 9": 0.3, "Jetson Orin Nano": 0.6, "AMD EPYC": 1.0}.get(device.model, 0.02)
        model, engine = rng.choice(list(MODELS)), rng.choice(list(ENGINES))
        cells = [
            cell(
                number, model=model, quantization=quantization, engine=engine, factor=speed * rng.lognormvariate(0, 0.2)
            )
            for number, quantization in enumerate(QUANTIZATIONS, 1)
        ]
        found.append(entry(f"record {place}", cells, devices=[device]))
    return found


def make_key(folder: Path, name: str = "key", kind: str = "ed25519", bits: int | None = None) -> Path:
    """A new SSH key without a passphrase."""
    path = folder / name
    size = ["-b", str(bits)] if bits else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", name, "-f", str(path)], check=True)
    return path


def allow(file: Path, **keys: Path) -> Path:
    """A file of signers, each with the public part of a key."""
    lines = [f"{name}@example.org {key.with_name(key.name + '.pub').read_text()}" for name, key in keys.items()]
    file.write_text("".join(lines))
    return file


def put(folder: Path, name: str, what: PublicEntry | bytes, key: Path | None = None) -> Path:
    """Write an entry, signed where there is a key."""
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = what if isinstance(what, bytes) else entry_bytes(what)
    path.write_bytes(content)
    if key is not None:
        path.with_name(path.name + SUFFIX).write_bytes(sign(content, key))
    return path
