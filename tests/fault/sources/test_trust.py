"""Whom a fetch trusts, and who gets the user's login: authorities of one's own, ~/.netrc, servers that lead elsewhere."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from meltrepro.errors import DigestMismatch, DownloadError, SourceError
from meltrepro.manifest.sources import GitSource, HuggingFaceSource, PypiSource, Source, UrlSource
from tests.fault.fileserver import FileServer, file_server
from tests.fault.sources.bench import COMMIT, HF, HF_PATH, MODEL, TINY, WHEEL, WHEEL_NAME, WHEEL_URL, Bench, git, sha
from tests.support.network import git_server
from tests.support.tls import Authority, authority

FILE = "/model.gguf"
BASIC = "Basic " + base64.b64encode(b"me:hunter2").decode()


def of(server: FileServer, host: str = "127.0.0.1") -> UrlSource:
    server.files[FILE] = MODEL
    return UrlSource(url=f"{server.scheme}://{host}:{server.port}{FILE}", digest=sha(MODEL))


# -- certificates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("kind", ["url", "hub", "git"])
def test_an_authority_of_ones_own_is_trusted_where_a_variable_names_it(
    kind: str,
    variable: str,
    bench: Bench,
    ca: Authority,
    repository: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _ = repository
    with file_server(ca.server()) as server, git_server(folder.parent, ca) as address:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.files[HF_PATH] = MODEL
        of_git = GitSource(git=f"{address}/{folder.name}/.git", commit=git(folder, "rev-parse", "HEAD"))
        sources: dict[str, Source] = {"url": of(server), "hub": HF, "git": of_git}
        source = sources[kind]
        with pytest.raises(SourceError, match=r"certificate"):
            bench.fetcher().get(source)
        monkeypatch.setenv(variable, str(ca.certificate))
        assert bench.fetcher().get(source).is_file()


def test_another_authority_is_not_trusted(
    bench: Bench, ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority(tmp_path / "other").certificate))
    with file_server(ca.server()) as server, pytest.raises(SourceError, match="is not accepted") as caught:
        bench.fetcher().get(of(server))
    assert "SSL_CERT_FILE=FILE" in (caught.value.hint or "")


def test_a_certificate_of_another_name_says_so(bench: Bench, ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.certificate))
    with file_server(ca.server("x", ["models.test"])) as server, pytest.raises(SourceError, match="mismatch") as caught:
        bench.fetcher().get(of(server))
    assert "REQUESTS_CA_BUNDLE" in (caught.value.hint or "")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("kind", ["url", "pypi", "hub", "git"])
def test_a_bundle_of_authorities_that_is_not_there(
    kind: str, variable: str, bench: Bench, index: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "/nowhere/ca.pem")
    of_git = GitSource(git="https://localhost:9/x.git", commit=COMMIT)
    sources: dict[str, Source] = {"url": of(index), "pypi": TINY, "hub": HF, "git": of_git}
    with pytest.raises(SourceError, match=f"{variable}: /nowhere/ca.pem does not exist"):
        bench.fetcher().get(sources[kind])


def test_a_port_without_tls_says_so(bench: Bench, server: FileServer) -> None:
    source = UrlSource(url=of(server).url.replace("http:", "https:"), digest=sha(MODEL))
    with pytest.raises(SourceError, match=r"TLS fails \(wrong version number\)"):
        bench.fetcher().get(source)


# -- logins -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user whose ~/.netrc has a login for this machine, whatever it is called."""
    user = tmp_path / "user"
    user.mkdir()
    lines = [f"machine {name} login me password hunter2\n" for name in ("127.0.0.1", "localhost")]
    (user / ".netrc").write_text("".join(lines))
    (user / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(user))
    return user


def logins(server: FileServer) -> set[str | None]:
    return {asked.headers.get("Authorization") for asked in server.asked}


def test_a_server_that_only_a_manifest_names_gets_no_login(bench: Bench, server: FileServer, netrc: Path) -> None:
    bench.fetcher().get(of(server))
    assert logins(server) == {None}


def test_a_server_that_the_user_named_gets_the_login(bench: Bench, server: FileServer, netrc: Path) -> None:
    bench.fetcher(logins=frozenset({"127.0.0.1"})).get(of(server))
    assert logins(server) == {BASIC}


def test_a_server_that_asks_for_a_login_says_how_it_gets_one(bench: Bench, server: FileServer, netrc: Path) -> None:
    source = of(server)
    server.orders[FILE] = ["status 401"]
    with pytest.raises(SourceError, match="asks for a login") as caught:
        bench.fetcher().get(source)
    assert "MELTREPRO_LOGINS=127.0.0.1" in (caught.value.hint or "")


@pytest.mark.parametrize("named", [True, False])
def test_git_has_the_login_of_a_named_server_alone(
    named: bool,
    bench: Bench,
    ca: Authority,
    netrc: Path,
    repository: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _ = repository
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.certificate))
    with git_server(folder.parent, ca, login=BASIC) as address:
        source = GitSource(git=f"{address}/{folder.name}/.git", commit=git(folder, "rev-parse", "HEAD"))
        if named:
            assert bench.fetcher(logins=frozenset({"localhost"})).get(source).is_file()
            return
        with pytest.raises(SourceError, match="asks for a login") as caught:
            bench.fetcher().get(source)
    assert "MELTREPRO_LOGINS=localhost" in (caught.value.hint or "")


def test_the_users_own_index_and_hub_get_the_login_and_no_other_server(
    bench: Bench, index: FileServer, netrc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fetcher().get(TINY)
    assert logins(index) == {BASIC}
    with file_server() as elsewhere:
        elsewhere.files[WHEEL_URL] = WHEEL
        page = index.files["/simple/tiny-model/"].decode()
        index.files["/simple/other/"] = page.replace("../..", f"http://localhost:{elsewhere.port}").encode()
        index.headers["/simple/other/"] = index.headers["/simple/tiny-model/"]
        other = Bench(bench.root / "other")
        other.root.mkdir()
        other.fetcher().get(PypiSource(pypi="other", version="1.0", filename=WHEEL_NAME))
        assert logins(elsewhere) == {None}
    with file_server() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.files[HF_PATH] = MODEL
        bench.fetcher().get(HF)
        assert logins(hub) == {BASIC}


def test_a_redirection_takes_no_login_along_and_finds_none(bench: Bench, server: FileServer, netrc: Path) -> None:
    with file_server() as other:
        other.files["/elsewhere"] = MODEL
        source = of(server)
        server.orders[FILE] = [f"redirect http://localhost:{other.port}/elsewhere"]
        bench.fetcher(logins=frozenset({"127.0.0.1"})).get(source)
        assert logins(server) == {BASIC}
        assert logins(other) == {None}


def test_a_login_in_an_address_is_used_and_shown_nowhere(bench: Bench, server: FileServer) -> None:
    url = of(server).url.replace("//", "//m%65:hunt%65r2@")
    bench.fetcher().get(UrlSource(url=url, digest=sha(MODEL)))
    assert logins(server) == {BASIC}
    server.orders[FILE] = ["status 403"]
    with pytest.raises(SourceError) as caught:
        bench.fetcher().get(UrlSource(url=url, digest="0" * 64))
    texts = [str(caught.value), str(caught.value.hint), str(bench.steps)]
    assert not any("hunt" in text for text in texts)


# -- what is no file --------------------------------------------------------------------------------------------------


def test_a_web_page_in_place_of_a_file_is_called_one(bench: Bench, server: FileServer) -> None:
    server.orders[FILE] = ["page"]
    with pytest.raises(DigestMismatch, match="what came is a web page") as caught:
        bench.fetcher().get(of(server))
    assert "in a browser" in (caught.value.hint or "")


def test_a_web_page_is_not_pinned_as_a_file(bench: Bench, hub: FileServer) -> None:
    hub.orders[HF_PATH] = ["page"]
    with pytest.raises(SourceError, match="a web page came in place of the file"):
        bench.fetcher().pin(HF, Path())
    assert bench.fetcher().pin(HF, Path()).digest == sha(MODEL)


def test_a_web_page_does_not_cost_what_had_arrived(bench: Bench, server: FileServer) -> None:
    content = MODEL * 4
    source = UrlSource(url=f"{server.url}{FILE}", digest=sha(content))
    server.files[FILE] = content
    server.orders[FILE] = ["truncate 300000", "page"]
    with pytest.raises(SourceError, match="a web page came"):
        bench.fetcher().get(source)
    assert bench.fetcher().get(source).read_bytes() == content
    first, _, third = server.ranges(FILE)
    assert first is None and third is not None


def test_a_page_that_is_the_file_is_taken(bench: Bench, server: FileServer) -> None:
    content = b"<html>" + b"x" * 100_000
    server.files[FILE] = content
    server.orders[FILE] = ["truncate 70000", "whole"]
    assert bench.fetcher().get(UrlSource(url=f"{server.url}{FILE}", digest=sha(content))).read_bytes() == content


@pytest.mark.parametrize("kind", ["url", "hub"])
def test_https_does_not_lead_to_http(
    kind: str, bench: Bench, ca: Authority, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.certificate))
    server.files["/elsewhere"] = MODEL
    with file_server(ca.server()) as safe:
        monkeypatch.setenv("HF_ENDPOINT", safe.url)
        source = of(safe) if kind == "url" else HF
        path = FILE if kind == "url" else HF_PATH
        safe.orders[path] = [f"redirect {server.url}/elsewhere?token=hunter2"] * 2
        with pytest.raises(SourceError, match=f"leads from https to {server.url}/elsewhere") as caught:
            bench.fetcher().get(source)
        assert server.asked == []
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("target", ["ftp://h/x", "file:///etc/passwd", "http://[::1/x", "javascript:x"])
def test_a_redirection_to_nowhere(target: str, bench: Bench, server: FileServer) -> None:
    source = of(server)
    server.orders[FILE] = [f"redirect {target}"] * 9
    with pytest.raises(SourceError):
        bench.fetcher().get(source)


@pytest.mark.parametrize("wish", ["7200", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_server_that_wants_patience_says_how_much(
    wish: str, bench: Bench, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)
    source = of(server)
    server.headers[FILE] = {"Retry-After": wish}
    server.orders[FILE] = ["status 429"] * 2
    with pytest.raises(DownloadError, match=r"status 429, and wants to be asked again in \d+ s"):
        bench.fetcher().get(source)
    assert [seconds for seconds in waited if seconds >= 1] == [60], "whatever other threads wait for"


@pytest.mark.parametrize("wish", ["soon", "", "-5", "9" * 400, "Fri, 31 Dec 2024 23:59:59 GMT"])
def test_a_wish_that_is_none_is_left_out(wish: str, bench: Bench, server: FileServer) -> None:
    source = of(server)
    server.headers[FILE] = {"Retry-After": wish}
    server.orders[FILE] = ["status 503"]
    assert bench.fetcher().get(source).is_file()


def test_a_server_with_an_address_of_version_6(bench: Bench) -> None:
    with file_server(host="::1") as server:
        server.files[FILE] = MODEL
        url = f"http://[::1]:{server.port}{FILE}"
        assert bench.fetcher().get(UrlSource(url=url, digest=sha(MODEL))).is_file()
        server.orders[FILE] = ["status 404"]
        with pytest.raises(SourceError) as caught:
            bench.fetcher().get(UrlSource(url=url.replace("//", "//me:hunter2@"), digest="0" * 64))
    assert url in str(caught.value)


def test_a_checkpoint_of_the_hub_is_listed_with_the_same_trust(
    bench: Bench, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with file_server(ca.server()) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises(SourceError, match="is not accepted"):
            bench.fetcher().pin(HuggingFaceSource(huggingface="org/model", revision=COMMIT), Path())
