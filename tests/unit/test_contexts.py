"""Which engine is meant: as `docker ps` understands variables, configuration and contexts, and what is said where it cannot be."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meltrepro import settings
from meltrepro.build import contexts, daemon
from meltrepro.build.contexts import named, sockets
from meltrepro.errors import EngineError


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose path is short enough for sockets; the system's are out of sight."""
    with tempfile.TemporaryDirectory(prefix="melt-") as folder:
        for name in ("SYSTEM", "PODMAN"):
            monkeypatch.setattr(contexts, name, Path(folder, name))
        yield Path(folder)


def configure(home: Path, text: object, folder: str = ".docker") -> Path:
    file = home / folder / "config.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    return file


def context(home: Path, name: str, endpoint: object, folder: str = ".docker") -> Path:
    """A context as `docker context create` writes it."""
    file = home / folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    return file


def environ(home: Path, **variables: str) -> dict[str, str]:
    return {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), **variables}


HOST, DESK = {"Host": "unix:///desk.sock", "SkipTLSVerify": False}, "unix:///desk.sock"


@pytest.mark.parametrize(
    ("variables", "current", "expected", "way"),
    [
        ({}, "desk", DESK, "the context desk, named by {home}/.docker/config.json"),
        ({"DOCKER_CONTEXT": "desk"}, "", DESK, "the context desk, named by DOCKER_CONTEXT"),
        ({"DOCKER_CONTEXT": "desk"}, "gone", DESK, "the context desk, named by DOCKER_CONTEXT"),
        ({"DOCKER_CONTEXT": "désk 2"}, "desk", "tcp://[::1]:1", r"the context d\xe9sk 2, named by DOCKER_CONTEXT"),
        ({"DOCKER_HOST": "unix:///h", "DOCKER_CONTEXT": "desk"}, "desk", "unix:///h", "DOCKER_HOST"),
        ({"DOCKER_HOST": "", "DOCKER_CONTEXT": ""}, "desk", DESK, "the context desk, named by {home}/.docker/config.json"),
        ({"DOCKER_CONTEXT": "default"}, "desk", None, ""),
        ({}, "default", None, ""),
        ({}, "", None, ""),
        ({}, None, None, ""),
    ],
)  # fmt: skip
def test_what_names_an_engine(
    home: Path, variables: dict[str, str], current: str | None, expected: str | None, way: str
) -> None:
    configure(home, {"currentContext": current, "auths": {"r": {"auth": "eDp5"}}, "credsStore": "desktop"})
    context(home, "desk", HOST)
    context(home, "désk 2", {"Host": "tcp://[::1]:1"})
    found = named(environ(home, **variables))
    assert (found and found.host) == expected
    assert found is None or found.way == way.format(home=home)


def test_the_configuration_lies_where_its_variable_says(home: Path) -> None:
    configure(home, {"currentContext": "desk"}, "else")
    context(home, "desk", HOST, "else")
    assert named(environ(home)) is None
    found = named(environ(home, DOCKER_CONFIG=str(home / "else")))
    assert found is not None and found.host == HOST["Host"]


def test_no_configuration_is_none(home: Path) -> None:
    assert named(environ(home)) is None
    assert named(environ(home, DOCKER_CONFIG=str(home / "nowhere"))) is None


@pytest.mark.parametrize("way", ["DOCKER_CONTEXT", "config.json"])
def test_a_context_that_is_not_there_is_named_with_its_source(home: Path, way: str) -> None:
    configure(home, {"currentContext": "" if way == "DOCKER_CONTEXT" else "gone"})
    with pytest.raises(EngineError, match=f"{way} names the context gone, which Docker does not have here") as caught:
        named(environ(home, **({"DOCKER_CONTEXT": "gone"} if way == "DOCKER_CONTEXT" else {})))
    assert "docker context ls" in str(caught.value.hint)
    assert "DOCKER_HOST" in str(caught.value.hint)
    assert "\n" not in caught.value.one_line


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '"x"', '{"currentContext": 5}', '{"proxies": []}', '{"proxies": {"default": "x"}}',
     '{"auths": []}', "[" * 100_000, "\x00", '{"a": 1e999}'],
)  # fmt: skip
@pytest.mark.parametrize("variables", [{}, {"DOCKER_HOST": "tcp://127.0.0.1:9"}])
def test_a_configuration_that_is_none_is_an_error_in_words(home: Path, text: str, variables: dict[str, str]) -> None:
    file = configure(home, text)
    with pytest.raises(EngineError, match=f"{file} is no file of Docker's") as caught:
        daemon.connect(settings.load(), environ(home, **variables))
    assert "\n" not in caught.value.one_line


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop"])
def test_a_configuration_that_is_no_file_is_not_waited_for(home: Path, kind: str) -> None:
    file = configure(home, {})
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to(file)
    with pytest.raises(EngineError, match=r"config\.json is no file of Docker's"):
        named(environ(home))


def test_a_configuration_may_be_a_link(home: Path) -> None:
    """As those have it who keep such files together."""
    file = configure(home, {"currentContext": "desk"})
    file.rename(home / "kept.json")
    file.symlink_to(home / "kept.json")
    context(home, "desk", HOST)
    found = named(environ(home))
    assert found is not None and found.host == HOST["Host"]


@pytest.mark.parametrize("endpoint", [[], {}, {"Host": 5}, {"Host": ""}, None, "unix:///x"])
def test_a_context_that_leads_nowhere_is_an_error_in_words(home: Path, endpoint: Any) -> None:
    file = context(home, "desk", endpoint)
    with pytest.raises(EngineError, match=f"{file} is no file of Docker's"):
        named(environ(home, DOCKER_CONTEXT="desk"))


@pytest.mark.parametrize("host", ["ssh://ann@far", "npipe:////./pipe/docker_engine"])
@pytest.mark.parametrize("variable", ["DOCKER_HOST", "DOCKER_CONTEXT"])
def test_an_engine_of_another_machine_is_refused(home: Path, host: str, variable: str) -> None:
    context(home, "far", {"Host": host})
    with pytest.raises(EngineError, match=rf"of .*{variable} is on another machine"):
        named(environ(home, **{variable: host if variable == "DOCKER_HOST" else "far"}))


def test_no_password_is_shown(home: Path) -> None:
    with pytest.raises(EngineError) as caught:
        named(environ(home, DOCKER_HOST="ssh://ann:secret@far"))
    assert "secret" not in caught.value.one_line


@pytest.mark.parametrize("skip", [False, True])
def test_a_context_has_its_own_keys(home: Path, skip: bool) -> None:
    keys = home / ".docker" / "contexts" / "tls" / hashlib.sha256(b"desk").hexdigest() / "docker"
    keys.mkdir(parents=True)
    for name in ("ca", "cert", "key"):
        (keys / f"{name}.pem").touch()
    context(home, "desk", {"Host": "tcp://127.0.0.1:2376", "SkipTLSVerify": skip})
    found = named(environ(home, DOCKER_CONTEXT="desk"))
    assert found is not None
    made = found.options["tls"]
    assert (made.cert, made.ca_cert, made.verify) == (
        (str(keys / "cert.pem"), str(keys / "key.pem")),
        str(keys / "ca.pem"),
        not skip,
    )
    (keys / "key.pem").unlink()
    with pytest.raises(EngineError, match=r"expected cert\.pem and key\.pem"):
        named(environ(home, DOCKER_CONTEXT="desk"))


def test_keys_that_a_variable_promises_and_that_are_not_there(home: Path) -> None:
    variables = environ(home, DOCKER_HOST="tcp://127.0.0.1:9", DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(home))
    with pytest.raises(EngineError, match="keys are not there") as caught:
        daemon.connect(settings.load(), variables)
    assert "DOCKER_CERT_PATH" in str(caught.value.hint)


def test_a_context_whose_engine_is_gone_is_named_with_what_to_do(home: Path) -> None:
    """Another engine, which the user did not mean, is no answer."""
    file = configure(home, {"currentContext": "desk"})
    context(home, "desk", {"Host": f"unix://{home}/gone.sock"})
    with pytest.raises(EngineError, match=rf"{home}/gone\.sock of the context desk, named by {file}") as caught:
        daemon.connect(settings.load(), environ(home))
    assert "docker context use default" in str(caught.value.hint)
    assert "DOCKER_HOST" in str(caught.value.hint)


def test_sockets_that_nobody_has_to_name(home: Path) -> None:
    places = ["SYSTEM", "run/docker.sock", "PODMAN", "run/podman/podman.sock", ".docker/desktop/docker.sock",
              ".docker/run/docker.sock", ".colima/default/docker.sock", ".rd/docker.sock"]  # fmt: skip
    for place in places:
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(home / place))
    assert [address.host for address in sockets(environ(home))] == [f"unix://{home / place}" for place in places]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_socket_of_somebody_else_is_passed_over(home: Path) -> None:
    (home / "SYSTEM").touch()
    os.chown(home / "SYSTEM", 65534, 65534)
    assert list(sockets(environ(home))) == []
