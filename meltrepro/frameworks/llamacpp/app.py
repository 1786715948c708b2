"""Recipes of the runner app for iPhones: `mac-ssh`, by a Mac, and `prebuilt`, a package that somebody has signed."""

from __future__ import annotations

from collections.abc import Mapping

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.frameworks.base import Release, Variant
from meltrepro.frameworks.llamacpp.options import IosBuild
from meltrepro.manifest.sources import Source


def recipe_source(ios: IosBuild, release: Release, variant: Variant, labels: Mapping[str, str]) -> RecipeSource:
    """The recipe of a bundle that holds the signed app; `parameters.json` among its files says what it must be."""
    mac = ios.mac is not None
    parameters: dict[str, object] = {"release": release.name, "commit": release.commit, "app": ios.app}
    if mac:
        parameters |= {"xcode": ios.xcode, "xcodegen": ios.xcodegen}
    place = {"mac": ios.mac, "developer_dir": ios.developer_dir, "team": ios.team}
    return RecipeSource(
        name=f"llama.cpp/{release.name}/run/{variant.name}",
        folders={name: resources.images() / name for name in ("ios", "runner", "llama.cpp/engine")} if mac else {},
        variables=parameters,
        inputs=_inputs(ios, release),
        triple=variant.triple,
        maker="mac-ssh" if mac else "prebuilt",
        signed=mac,
        place={key: value for key, value in place.items() if value is not None},
        labels=labels,
    )


def _inputs(ios: IosBuild, release: Release) -> Mapping[str, Source]:
    if ios.file is None:
        return release.sources
    return {"app.ipa": ios.file} if ios.ipa is not None else {**release.sources, "xcframework.zip": ios.file}
