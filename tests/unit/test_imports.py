"""The import order of docs/architecture.md, and what starting the command line may load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import meltrepro

PACKAGE = Path(meltrepro.__file__).parent
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"settings", "steps", "stats", "resources", "interrupts", "words", "registry", "untrusted", "atomic"}),
    frozenset({"manifest"}),
    frozenset({"chat"}),
    frozenset({"record"}),
    frozenset({"accuracy"}),
    frozenset({"build.model", "frameworks.base", "targets.base"}),  # the seams: one module each of a higher part
    frozenset({"plan"}),
    frozenset({"store"}),
    frozenset({"build", "processes"}),
    frozenset({"accuracy.requests"}),
    frozenset({"targets", "frameworks"}),
    frozenset({"measure"}),
    frozenset({"track"}),
    frozenset({"campaign"}),
    frozenset({"report", "replay", "studies", "history", "hosts"}),
    frozenset({"publish"}),
    frozenset({"workflow"}),
    frozenset({"cli", "lab", "testing"}),
)
"""From the lowest to the highest; a module may import its own layer and those below."""
OWNERS = {
    "mlflow": {"track"},
    "docker": {"build"},
    "jinja2": {"build", "chat"},
    "adbutils": {"targets"},
    "paramiko": {"targets"},
    "pymobiledevice3": {"targets"},
    "ruptures": {"history"},
    "dask": {"hosts"},
    "distributed": {"hosts"},
}
"""Packages that only one part may know, wherever in a file it imports them."""
ENGINES = re.compile(r"llama.?cpp|gguf|cuda|\bndk\b|jetpack|bionic", re.IGNORECASE)
"""What belongs to the package of a framework."""
KNOW_NO_ENGINE = [
    "plan",
    "build",
    "campaign",
    "measure",
    "accuracy",
    "record",
    "report",
    "replay",
    "publish",
    "history",
    "track",
    "workflow",
    "cli",
    "manifest",
    "chat",
]
PRIVATE = re.compile(r"_[a-z]\w*")
KNOW_PRIVATE_NAMES: dict[str, set[str]] = {
    "fault/building.py": {"_make_engine"},
    "fault/project.py": {"_make_engine"},
    "fault/sources/test_pypi.py": {"_pip_index_url"},
    "fault/test_strangers.py": {"_make_engine", "_mmdebstrap"},
    "fault/test_trials.py": {"_root"},
    "fuzz/answers.py": {"_find", "_parse"},
    "fuzz/surroundings.py": {"_lines"},
    "integration/ios_faults/test_access.py": {"_services"},
    "integration/ios_faults/test_around_trials.py": {"_awake"},
    "integration/test_device_faults.py": {"_reconnect_s"},
    "integration/test_device_state.py": {"_busy", "_server"},
    "integration/test_jetson_faults.py": {"_reconnect_s"},
    "integration/test_podman.py": {"_container", "_facts"},
    "integration/test_ssh.py": {"_connection", "_transport"},
    "unit/test_adb_place.py": {"_serve"},
    "unit/test_adb_server.py": {"_server"},
    "unit/test_android_identity.py": {"_place", "_platform", "_shared", "_shell"},
    "unit/test_doctor.py": {"_mounts", "_no_services", "_run"},
    "unit/test_guides.py": {"_protected_args"},
    "unit/test_ios_services.py": {"_control_class", "_inferred_service_class", "_paired"},
    "unit/test_iphone_services.py": {"_answer", "_connect"},
    "unit/test_lab_system.py": {"_root", "_show"},
}
"""Tests that reach into a module, mostly to stop something in its middle; this table may only shrink."""
HEAVY = {
    "mlflow",
    "docker",
    "paramiko",
    "adbutils",
    "pymobiledevice3",
    "numpy",
    "scipy",
    "requests",
    "jinja2",
    "rich",
    "ruptures",
    "distributed",
}


def _layer(*parts: str) -> int:
    """Of a module by the parts of its name below the package; a seam is found by its own, all others by the first."""
    names = (".".join(parts[:2]), parts[0])
    numbers = [number for name in names for number, layer in enumerate(LAYERS) if name in layer]
    assert numbers, f"meltrepro.{parts[0]} has no place in LAYERS"
    return numbers[0]


def _imports(path: Path, *, at_run_time: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if at_run_time:
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "_data" not in path.parts)


@pytest.mark.parametrize("path", _modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path: Path) -> None:
    here = path.relative_to(PACKAGE).with_suffix("").parts
    part = here[0]
    if part in ("__init__", "__main__"):
        return
    for name in _imports(path):
        root, *rest = name.split(".")
        if root == "meltrepro" and rest and rest[0] not in ("__version__",):
            assert _layer(*rest) <= _layer(*here), f"{path.name} imports {name}, which is above it"
            if rest[0] == "lab":
                assert part in ("cli", "lab")
        if root in OWNERS:
            assert part in OWNERS[root], f"only {OWNERS[root]} may import {root}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda path: path.stem)
def test_a_command_parses_calls_and_shows(path: Path) -> None:
    """Whatever touches the store, devices, engines or campaigns is work, which `workflow` does for Python users too."""
    if path.stem != "lab":
        work = {f"meltrepro.{part}" for part in ("store", "targets", "build", "campaign", "frameworks", "track")}
        found = {name for name in _imports(path, at_run_time=True) if ".".join(name.split(".")[:2]) in work}
        assert found == set()


def test_what_is_imported_is_declared() -> None:
    needed = {name.split(".")[0] for path in _modules() for name in _imports(path)} - set(sys.stdlib_module_names)
    declared = [Requirement(text) for text in metadata.requires("meltrepro") or []]
    names = {
        canonicalize_name(requirement.name)
        for requirement in declared
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": name}) for name in ("ios", "lab", "testing"))
    }
    providers = metadata.packages_distributions()
    for module in sorted(needed - {"meltrepro", "_typeshed", "pydantic_core"}):  # the last is a part of pydantic
        found = {canonicalize_name(name) for name in providers.get(module, [module])}
        assert found & names, f"{module} comes from {found}, which pyproject.toml does not declare"


def test_there_is_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in _modules():
        module = ".".join(("meltrepro", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names: set[str] = set()
        for node in tree.body:  # imports inside functions run late and cannot make a circle
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        graph[module] = names
    graph = {
        module: {name for name in names if name in graph and name != "meltrepro"} for module, names in graph.items()
    }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, (*above, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["validate", "specs/quickstart.yaml"]])
def test_a_quick_command_loads_nothing_heavy(arguments: list[str]) -> None:
    allowed = {"jinja2"} if "validate" in arguments else set[str]()  # chat templates say how long prompts are
    code = (
        "import sys; from meltrepro.cli.app import main; status = main(sys.argv[1:]); "
        f"print(sorted({HEAVY - allowed!r} & set(sys.modules)), status, file=sys.stderr)"
    )
    root = PACKAGE.parent
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.strip().endswith("[] 0"), done.stderr


def _spoken(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name and every text that decides something or is shown; comments and docstrings are neither."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.lineno, node.value
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""


@pytest.mark.parametrize("part", KNOW_NO_ENGINE)
def test_no_framework_is_named_outside_of_its_package(part: str) -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text[:60]}"
        for path in sorted((PACKAGE / part).rglob("*.py"))
        for line, text in _spoken(ast.parse(path.read_text(encoding="utf-8")))
        if ENGINES.search(text)
    ]
    assert found == []


def _private_names(tree: ast.Module) -> Iterator[str]:
    """Names beginning with `_` that a test takes from elsewhere: imported, read from an object, patched."""
    nodes = list(ast.walk(tree))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    held = [node for node in nodes if isinstance(node, ast.Attribute)]
    mine = {node.attr for node in held if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")}
    own |= mine | {"_exit", "_replace"}  # of the standard library
    for node in nodes:
        found: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "meltrepro":
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            found = [node.attr]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            texts = [one.value for one in node.args[:2] if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            found = [text.rpartition(".")[2] for text in texts]
        yield from (name for name in found if PRIVATE.fullmatch(name) and name not in own)


@pytest.mark.slow
def test_no_more_tests_know_private_names() -> None:
    tests = PACKAGE.parent / "tests"
    found = {
        path.relative_to(tests).as_posix(): names
        for path in sorted(tests.rglob("*.py"))
        if (names := set(_private_names(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == KNOW_PRIVATE_NAMES
