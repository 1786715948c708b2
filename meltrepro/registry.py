"""The plug-ins there are: lazy tables, open to other packages by entry points.

Nothing is imported before it is asked for, and nobody looks for entry points where a built-in answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from meltrepro.errors import UsageError


class Registry:
    """One kind of plug-in, each a single object by its name in manifests."""

    def __init__(self, group: str, what: str, built_in: Mapping[str, str]) -> None:
        """`built_in` is `module:object` by name; what others bring stands in the entry points of `group`."""
        self.group = group
        self._what = what
        self._built_in = built_in
        self.loaded: dict[str, Any] = {}

    def kinds(self) -> tuple[str, ...]:
        """Every name, the built-in ones first."""
        return tuple(dict.fromkeys((*self._built_in, *self.loaded, *self._points)))

    def has(self, kind: str) -> bool:
        return kind in self._built_in or kind in self.loaded or kind in self._points

    def add(self, kind: str, plugin: Any) -> None:
        """Have an object under a name in this process, as notebooks and tests do."""
        self.loaded[kind] = plugin

    def get(self, kind: str) -> Any:
        """The object of a name; raises `UsageError` where nothing here brings it, or its package is broken."""
        if kind not in self.loaded:
            if not self.has(kind):
                raise UsageError(
                    f"no {self._what} {kind!r} is installed here", hint="install the package that brings it"
                )
            where = self._built_in[kind] if kind in self._built_in else self._points[kind].value
            module, _, name = where.partition(":")
            try:
                plugin = getattr(import_module(module), name)
                if isinstance(plugin, type):
                    raise TypeError("it is a class, expected an object")
            except Exception as error:  # whatever the code of others raises while it is imported
                raise UsageError(
                    f"{self._what} {kind!r} cannot be loaded from {where}: {type(error).__name__}: {error}",
                    hint=f"its package registers it in the entry points of {self.group}: mend or remove that package",
                ) from error
            self.loaded[kind] = plugin
        return self.loaded[kind]

    def packages(self) -> set[str]:
        """The packages that others have brought."""
        return {point.value.partition(":")[0].partition(".")[0] for point in self._points.values()} - {"meltrepro"}

    @cached_property
    def _points(self) -> Mapping[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}


FRAMEWORKS = Registry(
    "meltrepro.frameworks",
    "framework",
    {
        "llama.cpp": "meltrepro.frameworks.llamacpp.module:FRAMEWORK",
        "mlc": "meltrepro.frameworks.mlc.module:FRAMEWORK",
        "onnxruntime": "meltrepro.frameworks.onnxruntime.module:FRAMEWORK",
        "openvino": "meltrepro.frameworks.openvino.module:FRAMEWORK",
    },
)
"""Objects of `meltrepro.frameworks.base.Framework`."""
TARGETS = Registry(
    "meltrepro.targets",
    "kind of target",
    {
        "host": "meltrepro.targets.host:KIND",
        "android": "meltrepro.targets.android:KIND",
        "ios": "meltrepro.targets.ios:KIND",
        "jetson": "meltrepro.targets.jetson:KIND",
        "linux": "meltrepro.targets.ssh:KIND",
    },
)
"""Objects of `meltrepro.targets.base.TargetKind`."""
STUDIES = Registry("meltrepro.studies", "study", {"melt": "meltrepro.studies.melt.study:STUDY"})
"""Objects of `meltrepro.studies.base.Study`."""
