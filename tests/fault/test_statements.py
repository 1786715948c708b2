"""What is said of artifacts beside their bytes: bills of materials, provenance, and a bundle's RO-Crate metadata."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meltrepro.cli.app import main
from meltrepro.replay import archive
from meltrepro.store.cas import Store
from tests.fault.project import LOCAL, MODEL, SDIST, Project, runner_of


def statement(project: Project, kind: str, artifact: str) -> dict[str, Any]:
    found = Store(project.store).get_ref(kind, project.read_lock().artifacts[artifact].digest)
    assert found is not None
    return found


def quantizer_of(project: Project) -> str:
    return next(name for name in project.read_lock().artifacts if "/quantize/" in name)


def by_digest(components: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {component["hashes"][0]["content"]: component for component in components}


def test_the_bill_of_a_bundle(project: Project) -> None:
    lock = project.read_lock()
    name = runner_of(lock)
    bill = statement(project, "sbom", name)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    subject = bill["metadata"]["component"]
    assert (subject["name"], subject["type"]) == (name, "application")
    assert subject["hashes"] == [{"alg": "SHA-256", "content": lock.artifacts[name].digest}]
    components = by_digest(bill["components"])
    inside = components[lock.sources[SDIST].digest]
    assert inside["purl"] == "pkg:pypi/llama-cpp-python@0.3.36"
    assert "scope" not in inside, "it is in the bundle"
    assert lock.toolchain is not None and lock.base is not None
    makers = {*lock.toolchain.wheels.values(), *(package.digest for package in lock.base.packages.values())}
    assert {components[digest]["scope"] for digest in makers} == {"excluded"}, "they made it and are not in it"
    assert "timestamp" not in bill["metadata"], "the same artifact has the same bill"
    dependencies = {entry["ref"]: entry.get("dependsOn", []) for entry in bill["dependencies"]}
    assert inside["bom-ref"] in dependencies[subject["bom-ref"]]


def test_the_bill_of_a_model_names_the_quantizer(project: Project) -> None:
    lock = project.read_lock()
    bill = statement(project, "sbom", MODEL)
    assert bill["metadata"]["component"]["type"] == "machine-learning-model"
    components = by_digest(bill["components"])
    assert lock.sources[LOCAL].digest in components
    assert components[lock.artifacts[quantizer_of(project)].digest]["scope"] == "excluded"


def test_provenance_names_every_input(project: Project) -> None:
    lock = project.read_lock()
    assert lock.toolchain is not None and lock.base is not None
    quantizer = lock.artifacts[quantizer_of(project)].digest
    wanted = {
        runner_of(lock): {lock.sources[SDIST].digest, *lock.toolchain.wheels.values(), lock.base.layer},
        MODEL: {lock.sources[LOCAL].digest, quantizer},
    }
    for name, digests in wanted.items():
        told = statement(project, "provenance", name)
        assert told["_type"] == "https://in-toto.io/Statement/v1"
        assert told["predicateType"] == "https://slsa.dev/provenance/v1"
        assert told["subject"] == [{"name": name, "digest": {"sha256": lock.artifacts[name].digest}}]
        definition = told["predicate"]["buildDefinition"]
        assert {each["digest"]["sha256"] for each in definition["resolvedDependencies"]} >= digests
        assert definition["internalParameters"]["key"] == lock.artifacts[name].key
        details = told["predicate"]["runDetails"]
        assert details["builder"]["version"]["engine"] == "small 1"
        assert details["metadata"]["startedOn"] <= details["metadata"]["finishedOn"]
    recipe = statement(project, "provenance", runner_of(lock))["predicate"]["buildDefinition"]["internalParameters"]
    assert recipe["recipe"] in lock.recipes.values()


@pytest.mark.parametrize("kind", ["sbom", "provenance"])
def test_a_statement_is_no_part_of_what_it_is_about(project: Project, kind: str) -> None:
    """Without it, or with another one, the artifact is the same, and so is the build."""
    lock = project.read_lock()
    store = Store(project.store)
    for name, artifact in lock.artifacts.items():
        store.put_ref(kind, artifact.digest, {"about": name, "written": "by somebody else"})
    assert main(["build", str(project.spec), "--locked"]) == 0
    assert main(["verify", str(project.spec)]) == 0
    assert project.read_lock() == lock


def test_a_bundle_is_an_ro_crate(project: Project) -> None:
    """What RO-Crate 1.1 demands of the metadata file and of the root, and that it names all files."""
    found: dict[str, bytes] = {}

    def take(name: str, pieces: Any) -> None:
        found[name] = b"".join(pieces)

    archive.verify(project.bundle, take)
    crate = json.loads(found.pop("ro-crate-metadata.json"))
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    descriptor = entities.pop("ro-crate-metadata.json")
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    root = entities.pop(descriptor["about"]["@id"])
    assert root["@type"] == "Dataset" and root["name"] and root["description"]
    began = json.loads((project.campaign / "campaign.json").read_bytes())["id"]
    assert root["datePublished"].replace("-", "") == began[:8], "the day of the measurement"
    parts = {part["@id"] for part in root["hasPart"]}
    assert parts == set(entities) == set(found)
    assert {entity["@type"] for entity in entities.values()} == {"File"}


def test_a_record_keeps_what_the_engine_executed(project: Project) -> None:
    """As it was when the artifact was built, for the campaign took it from the store."""
    kept = sorted(path.read_text() for path in (project.campaign / "builds").rglob("Dockerfile"))
    assert kept == ["FROM nothing\n"] * 2, "of runner and quantizer"
    assert len(list((project.campaign / "builds").rglob("build.sh"))) == 2
