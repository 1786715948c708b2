"""Which keys of hosts are believed: those of OpenSSH's own files, in all of their spellings, and no others."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from paramiko import ECDSAKey, PKey

from meltrepro.errors import TargetError
from meltrepro.targets.ssh.access import prefer, verify
from meltrepro.targets.ssh.config import Route


def line(names: str, key: PKey, before: str = "") -> str:
    return f"{before}{names} {key.get_name()} {key.get_base64()} a comment\n"


@pytest.fixture(scope="module")
def keys() -> list[ECDSAKey]:
    return [ECDSAKey.generate() for _ in range(2)]


@pytest.fixture
def route(tmp_path: Path) -> Route:
    files = (tmp_path / "known hosts", tmp_path / "none")
    return Route("orin", "10.0.0.7", 2222, "melt", (), files)


@pytest.mark.parametrize(
    "names", ["[10.0.0.7]:2222", "other,[10.0.0.7]:2222", "[10.0.0.*]:2222", "[10.0.0.?]:22*", "*"]
)
def test_a_host_that_is_known(route: Route, keys: list[ECDSAKey], names: str) -> None:
    route.known_hosts[0].write_text("# a remark\n\ngarbage\nx ssh-odd AAAA\n" + line(names, keys[0]))
    verify(route, keys[0])


def test_a_name_that_is_hashed(route: Route, keys: list[ECDSAKey]) -> None:
    route.known_hosts[0].write_text(line(route.known_as, keys[0]))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(route.known_hosts[0])], check=True, stderr=subprocess.DEVNULL)
    assert "10.0.0.7" not in route.known_hosts[0].read_text()
    verify(route, keys[0])


@pytest.mark.parametrize(
    "names", ["10.0.0.7", "[10.0.0.7]:22", "*,![10.0.0.7]:2222", "1[10.0.0.7]:2222", "[10.0.0.70]:2222", "0:2222"]
)
def test_a_host_that_is_not(route: Route, keys: list[ECDSAKey], names: str) -> None:
    route.known_hosts[0].write_text(line(names, keys[0]))
    with pytest.raises(TargetError, match="is not known") as failure:
        verify(route, keys[0])
    assert keys[0].fingerprint in failure.value.message
    assert f"ssh-keyscan -p 2222 10.0.0.7 >> '{route.known_hosts[0]}'" in (failure.value.hint or "")
    assert "ssh_host_ecdsa_key.pub" in (failure.value.hint or "")


def test_a_key_that_changed(route: Route, keys: list[ECDSAKey]) -> None:
    route.known_hosts[0].write_text(line(route.known_as, keys[0]))
    with pytest.raises(TargetError, match="has changed") as failure:
        verify(route, keys[1])
    assert keys[0].fingerprint in failure.value.message
    assert keys[1].fingerprint in failure.value.message
    assert "ssh-keygen -R '[10.0.0.7]:2222' -f" in (failure.value.hint or "")


def test_one_of_several_keys_is_enough(route: Route, keys: list[ECDSAKey]) -> None:
    route.known_hosts[0].write_text(line(route.known_as, keys[0]) + line(route.known_as, keys[1]))
    for key in keys:
        verify(route, key)


def test_a_key_that_is_revoked(route: Route, keys: list[ECDSAKey]) -> None:
    route.known_hosts[0].write_text(line(route.known_as, keys[0]) + line("*", keys[0], "@revoked "))
    with pytest.raises(TargetError, match="revoked"):
        verify(route, keys[0])


def test_an_authority_vouches_for_nothing_here(route: Route, keys: list[ECDSAKey]) -> None:
    route.known_hosts[0].write_text(line("*", keys[0], "@cert-authority "))
    with pytest.raises(TargetError, match="not known"):
        verify(route, keys[0])


def test_an_alias_is_the_name(route: Route, keys: list[ECDSAKey]) -> None:
    route.known_hosts[0].write_text(line("the-board", keys[0]))
    verify(replace(route, key_alias="the-board"), keys[0])


def test_the_kind_that_is_known_is_asked_for_first(route: Route, keys: list[ECDSAKey]) -> None:
    offered = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512")
    assert prefer(offered, route) == offered
    route.known_hosts[0].write_text(line(route.known_as, keys[0]))
    assert prefer(offered, route) == ("ecdsa-sha2-nistp256", "ssh-ed25519", "rsa-sha2-512")
