"""What a user's surroundings say: variables, what ssh says, known hosts, files of Docker's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO
from unittest.mock import patch

from meltrepro import settings
from meltrepro.build import contexts
from meltrepro.errors import MeltreproError
from meltrepro.store import proxies
from meltrepro.store.names import masked, redact
from meltrepro.targets.android.adb import Server
from meltrepro.targets.ios.usbmux import plain_address
from meltrepro.targets.ssh import access
from meltrepro.targets.ssh.config import route_to
from meltrepro.track.places import choose

NAMES = (
    *("MELTREPRO_HOME", "MELTREPRO_CACHE", "MELTREPRO_MIRRORS", "MELTREPRO_JOBS", "MELTREPRO_OFFLINE"),
    *("MELTREPRO_BASE_IMAGE", "MELTREPRO_LOGINS", "MELTREPRO_LOCKS", "MELTREPRO_DEBUG"),
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "XDG_RUNTIME_DIR"),
    *("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT", "USBMUXD_SOCKET_ADDRESS"),
    *("MLFLOW_TRACKING_URI", "HTTPS_PROXY", "http_proxy", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "HF_ENDPOINT"),
)
"""Those whose values are read here; a line of an input is the value of the name in its place."""


def _environment(data: bytes, folder: Path) -> object:
    texts = data.replace(b"\0", b"").decode("utf-8", "surrogateescape").split("\n")
    environ = {"HOME": str(folder), **{name: text for name, text in zip(NAMES, texts, strict=False) if text}}
    with patch.dict(os.environ, environ, clear=True):
        for ask in (
            lambda: settings.load(environ),
            lambda: settings.locks(environ),
            settings.debug,
            lambda: contexts.named(environ),
            lambda: list(contexts.sockets(environ)),
            Server.usual,
            lambda: Server.usual().place,
            lambda: plain_address(environ.get("USBMUXD_SOCKET_ADDRESS")),
            lambda: choose(environ, None, "sqlite:///x"),
            lambda: _checked(proxies.proxy_for("https://h/x", environ)),
            lambda: proxies.without_logins("".join(texts), environ),
            lambda: proxies.ca_bundle(environ),
            lambda: [(redact(text), masked("".join(texts), text)) for text in texts[:30]],
        ):
            try:
                ask()
            except MeltreproError as error:
                assert len(error.one_line.encode("utf-8", "surrogateescape")) < 100_000
    return None


def _checked(proxy: proxies.Proxy | None) -> None:
    if proxy is not None:
        proxy.check()


SET = (
    *("/tmp", "/tmp", "/tmp/m.yaml", "4", "0", "name@sha256:" + "0" * 64, "a.example,b.example", "/tmp", "0"),
    *("unix:///run/docker.sock", "default", "/tmp", "1", "/tmp", "/run/user/0"),
    *("tcp:[::1]:5037", "::1", "5037", "UNIX:/run/usbmuxd"),
    *(
        "http://user:word@h:5000/?token=x",
        "socks5h://u:p@h:1080",
        "http://h:3128",
        "http://h",
        "localhost",
        "/x",
        "http://h",
    ),
)


def _ssh(data: bytes, _: Path) -> object:
    """What `ssh -G` says of every host and, behind `%%`, the keys of hosts."""
    said, known = ([*data.split(b"\n%%\n", 1), b""])[:2]

    def run(command: Sequence[str], *, stdout: BinaryIO, **_: object) -> subprocess.CompletedProcess[bytes]:
        stdout.write(said)
        return subprocess.CompletedProcess(command, 0)

    found: list[object] = list(access._lines(known.decode(errors="replace")))
    for name in ("board", "user@[::1]:2222", "ssh://u@10.0.0.1"):
        with contextlib.suppress(MeltreproError), patch("meltrepro.targets.ssh.config.subprocess.run", run):
            found.append(route_to(name).known_as)
    return found


SSH = (
    (
        "host board\nuser u\nhostname 10.0.0.5\nport 2222\nidentitiesonly yes\nproxyjump none\nidentityagent SSH_AUTH_SOCK\n"
        'identityfile ~/.ssh/x_%h\nuserknownhostsfile ~/.ssh/known_hosts "/tmp/a b"\nhostkeyalias board\n'
        "knownhostscommand /bin/cat %H\nrevokedhostkeys none\nproxycommand nc %h %p\ncertificatefile ${HOME}/x\n%%\n"
        "board ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvYXJkYm9hcmRib2FyZGJvYXJkYm9hcmRib2FyZDEy\n"
        "|1|JfKTdBh7rNbXkVAQCRp4OQoPfmI=|USECr3SWf1JUPsms5AqfD5QfxkM= ssh-rsa AAAA\n"
    ),
)


def _docker(data: bytes, folder: Path) -> object:
    """Docker's configuration and a context of its."""
    first, _, second = data.partition(b"\n%%\n")
    (folder / "config.json").write_bytes(first)
    meta = folder / "contexts" / "meta" / hashlib.sha256(b"mine").hexdigest()
    meta.mkdir(parents=True, exist_ok=True)
    (meta / "meta.json").write_bytes(second or first)
    return contexts.named({"DOCKER_CONFIG": str(folder), "HOME": str(folder)})


DOCKER = (
    (
        '{"currentContext": "mine", "auths": {}}\n%%\n'
        '{"Name": "mine", "Endpoints": {"docker": {"Host": "unix:///run/x.sock", "SkipTLSVerify": false}}}'
    ),
)


def _bytes(texts: Sequence[str]) -> Callable[[], list[bytes]]:
    return lambda: [text.encode() for text in texts]


KINDS: dict[str, tuple[Callable[[bytes, Path], object], Callable[[], Sequence[bytes]], str]] = {
    "environment": (_environment, _bytes(["\n".join(SET)]), "text"),
    "ssh": (_ssh, _bytes(SSH), "text"),
    "docker-files": (_docker, _bytes(DOCKER), "text"),
}
