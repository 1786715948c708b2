"""Recipes of the runner app for iPhones: `mac-ssh`, by a Mac, and `prebuilt`, a package that somebody has signed."""

from __future__ import annotations

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.manifest.apps import IosBuild
from meltrepro.plan.model import IOS, BundleNode


def recipe_source(node: BundleNode, ios: IosBuild) -> RecipeSource:
    """The recipe of a bundle that holds the signed app; `parameters.json` among its files says what it must be."""
    mac = ios.mac is not None
    parameters: dict[str, object] = {"release": node.release.name, "commit": node.release.commit, "app": ios.app}
    if mac:
        parameters |= {"xcode": ios.xcode, "xcodegen": ios.xcodegen}
    place = {"mac": ios.mac, "developer_dir": ios.developer_dir, "team": ios.team}
    return RecipeSource(
        name=f"{node.kind}/{node.release.name}/{node.purpose}/{node.isa.name}",
        folders={name: resources.images() / name for name in ("ios", "runner", "llama.cpp/engine")} if mac else {},
        variables=parameters,
        inputs=node.sources,
        triple=IOS,
        maker="mac-ssh" if mac else "prebuilt",
        place={key: value for key, value in place.items() if value is not None},
        labels={
            "org.opencontainers.image.version": node.release.name,
            "org.opencontainers.image.revision": node.release.commit,
            "org.opencontainers.image.source": "https://github.com/ggml-org/llama.cpp",
            "org.opencontainers.image.licenses": "MIT",
        },
    )
