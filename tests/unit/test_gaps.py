"""What a bundle lacks, what this machine lacks, and figures too few to judge: said before anything long begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro import errors
from meltrepro import settings as settings_module
from meltrepro.manifest.loader import parse_manifest
from meltrepro.manifest.lock import Lock, LockedArtifact, LockedSource
from meltrepro.replay import archive, gaps
from meltrepro.stats.equivalence import Design, ReplayVerdict, decide
from meltrepro.store.cas import Store
from tests.support.campaigns import build_campaign

MANIFEST = b"""
meltrepro: 1
name: own
models:
  mine: {source: {file: mine.gguf}, chat_template: plain, quantizations: [as-is]}
  ours: {source: {url: "https://example.org/ours.gguf", digest: "2222222222222222222222222222222222222222222222222222222222222222"}, chat_template: plain, quantizations: [as-is]}
  free: {source: {file: free.gguf}, redistributable: true, chat_template: plain, quantizations: [as-is]}
frameworks:
  llama.cpp: {release: "2024-02-27"}
targets:
  here: {kind: host}
workloads:
  chat: {conversations: [[Hello]], context: 256, max_tokens: 8}
"""
SOURCES = {"file:mine.gguf": "1" * 64, "url:https://example.org/ours.gguf": "2" * 64, "file:free.gguf": "3" * 64}


def lock(*, artifacts: bool) -> Lock:
    made = {
        f"{name}/as-is/llama.cpp": LockedArtifact(key="0" * 64, digest=f"{n}" * 64)
        for n, name in ((7, "mine"), (8, "ours"))
    }
    return Lock(
        manifest="0" * 64,
        sources={key: LockedSource(digest=digest, size=2_500_000) for key, digest in SOURCES.items()},
        artifacts=made if artifacts else {},
    )


def test_gaps_are_named_with_size_digest_and_the_way_to_fill_them(tmp_path: Path) -> None:
    manifest = parse_manifest(MANIFEST, "m.yaml")
    found = gaps.gaps(manifest, lock(artifacts=True), Store(tmp_path))
    assert [(gap.name, gap.fetched) for gap in found] == [
        ("file:mine.gguf", False),
        ("url:https://example.org/ours.gguf", True),
    ]
    text = str(found[0])
    for word in ("file:mine.gguf", "2.5 MB", "1" * 64, "ask its owner", "MELTREPRO_MIRRORS"):
        assert word in text
    assert "redistributable" in found[0].why
    assert "licence" not in found[0].why, "nobody spoke of a licence"
    assert "fetched by the replay" in str(found[1])


def test_what_is_here_is_no_gap(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "model").write_bytes(b"model")
    digest = store.put_file(tmp_path / "model")
    known = lock(artifacts=True)
    known.artifacts["mine/as-is/llama.cpp"] = LockedArtifact(key="0" * 64, digest=digest)
    found = gaps.gaps(parse_manifest(MANIFEST, "m.yaml"), known, store)
    assert [gap.name for gap in found] == ["url:https://example.org/ours.gguf"], "a model that is here needs no source"


def test_everything_that_is_in_the_way_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr(gaps, "free_bytes", lambda _: 1)
    known = lock(artifacts=True)
    known.artifacts["llama.cpp/run/x86_64_v3"] = LockedArtifact(key="0" * 64, digest="9" * 64)
    bundle = tmp_path / "own.melt"
    archive.write(bundle, {"name": "own"}, {"manifest.yaml": MANIFEST, "lock.yaml": known.model_dump_json().encode()})
    with pytest.raises(errors.PlanError) as failure:
        gaps.require_ready(bundle, settings_module.load(), "process")
    for word in ("1" * 64, "file:mine.gguf", "x86_64_v3", "aarch64", "bubblewrap", "MB are free"):
        assert word in failure.value.message
    assert "2" * 64 not in failure.value.message, "what the replay fetches by itself is in nobody's way"
    assert not (tmp_path / "cache").exists()
    with pytest.raises(errors.PlanError) as failure:
        gaps.require_ready(bundle, settings_module.load(), "process", elsewhere=True)
    assert "aarch64" not in failure.value.message


def test_programs_of_phones_are_none_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry for a phone and for this machine built programs for both; the cells of this one tell which it ran."""
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    campaign = build_campaign(tmp_path / "home")
    known = lock(artifacts=False)
    for variant in ("x86_64_v3", "armv8_2-android29"):
        known.artifacts[f"llama.cpp/run/{variant}"] = LockedArtifact(key="0" * 64, digest="9" * 64)
    contents = {
        "manifest.yaml": (campaign / "manifest.yaml").read_bytes(),
        "lock.yaml": known.model_dump_json().encode(),
        f"records/{campaign.name}/campaign.json": (campaign / "campaign.json").read_bytes(),
    }
    bundle = tmp_path / "own.melt"
    archive.write(bundle, {"name": "own"}, contents)
    with pytest.raises(errors.PlanError) as failure:
        gaps.require_ready(bundle, settings_module.load(), "process")
    assert "programs are for x86_64_v3, this machine is aarch64" in failure.value.message


@pytest.mark.parametrize("missing", [1, 600, 20_000])
def test_half_a_bundle_is_refused_at_once(tmp_path: Path, missing: int) -> None:
    bundle = tmp_path / "own.melt"
    archive.write(bundle, {"name": "own"}, {"manifest.yaml": MANIFEST, "objects/x": bytes(60_000)})
    whole = bundle.read_bytes()
    assert archive.peek(bundle, ("manifest.yaml", "none"))[1] == {"manifest.yaml": MANIFEST}
    bundle.write_bytes(whole[:-missing])
    with pytest.raises(errors.TruncatedBundle, match=f"only {len(whole) - missing} of the bundle's {len(whole)} bytes"):
        archive.peek(bundle, ("manifest.yaml",))


@pytest.mark.parametrize(("recorded", "judged"), [(1, False), (2, False), (3, True)])
def test_too_few_recorded_values_decide_nothing(recorded: int, judged: bool) -> None:
    decision = decide([10.0, 10.01, 10.02][:recorded], [10.0 + i / 1000 for i in range(30)], Design())
    assert (decision.verdict is ReplayVerdict.reproduced) is judged
    if not judged:
        assert decision.final, "no further trial adds to what was recorded"
        assert "too few to judge" in decision.reason
        assert "3 are needed" in decision.reason
