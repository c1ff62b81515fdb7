"""The MPIJob that is written, against the schema of the MPI operator; no cluster takes it here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from aiinfra_widgets.errors import SpecError
from aiinfra_widgets.launch.kubernetes import HOSTFILE, KubernetesRequest, manifest

RUN = ["run", "training", "--nodes", "5"]
ASKED = KubernetesRequest(name="train-42", image="registry.example/lab:1.0", ranks=5, ranks_per_worker=2, claim="runs")


def strict(schema: Any) -> None:
    """Refuse fields that the schema does not know: an API server would drop them without a word."""
    if isinstance(schema, dict):
        if schema.pop("x-kubernetes-int-or-string", False):
            schema.pop("type", None)
            schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
        if isinstance(schema.get("properties"), dict) and not open_ended:
            schema["additionalProperties"] = False
        for value in list(schema.values()):
            strict(value)
    elif isinstance(schema, list):
        for value in schema:
            strict(value)


@pytest.fixture(scope="module")
def mpijob() -> jsonschema.Draft7Validator:
    schema = json.loads(Path(__file__).with_name("mpijob_crd.json").read_text())["schema"]
    strict(schema["properties"]["spec"])
    return jsonschema.Draft7Validator(schema)


def test_the_manifest_is_what_the_operator_takes(mpijob):
    assert list(mpijob.iter_errors(manifest(ASKED, RUN))) == []
    more = KubernetesRequest("gpu", "lab", 2, "runs", namespace="ana", gpus_per_rank=1, time_limit_s=0)
    made = manifest(more, ["resume", "20260101-120000-training-abcd"])
    assert list(mpijob.iter_errors(made)) == []
    assert made["metadata"]["namespace"] == "ana"
    limits = made["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "1", "memory": "1024Mi", "nvidia.com/gpu": "1"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(("mpiImplementation",), "LAM", id="enum"),
        pytest.param(("slotsPerWorker",), "2", id="type"),
        pytest.param(("slotPerWorker",), 2, id="misspelt"),
        pytest.param(("mpiReplicaSpecs", "Worker", "replicas"), "3", id="replicas"),
        pytest.param(("mpiReplicaSpecs", "Worker", "template", "spec", "container"), [], id="deep"),
    ],
)
def test_the_schema_would_see_a_mistake(mpijob, path, value):
    made = manifest(ASKED, RUN)
    where = made["spec"]
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    assert list(mpijob.iter_errors(made))


def test_five_ranks_on_pods_of_two_need_three_and_run_by_the_operators_host_file():
    spec = manifest(ASKED, RUN)["spec"]
    assert spec["mpiReplicaSpecs"]["Worker"]["replicas"] == 3
    assert spec["slotsPerWorker"] == 2
    [launcher] = spec["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"]
    assert launcher["command"] == ["aiinfra", *RUN, "--on", "hosts", "--hosts", f"file={HOSTFILE}"]
    mounts = {m["mountPath"] for m in launcher["volumeMounts"]}
    workers = spec["mpiReplicaSpecs"]["Worker"]["template"]["spec"]
    assert mounts <= {m["mountPath"] for m in workers["containers"][0]["volumeMounts"]}
    assert {v["name"] for v in workers["volumes"]} == {"home", "shm"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"name": "Train 42"}, "name: got 'Train 42'", id="name"),
        pytest.param({"image": "lab;rm"}, "image: got 'lab;rm'", id="image"),
        pytest.param({"ranks": 0}, "ranks: got 0; allowed: 1", id="ranks"),
        pytest.param({"claim": ""}, "claim: got ''", id="claim"),
        pytest.param({"namespace": "A"}, "namespace: got 'A'", id="namespace"),
        pytest.param({"time_limit_s": -1.0}, "time_limit_s: got -1", id="time"),
    ],
)
def test_a_request_that_is_wrong_says_what_is_allowed(change, said):
    given = {"name": "train", "image": "lab", "ranks": 2, "claim": "runs"}
    with pytest.raises(SpecError, match=said):
        KubernetesRequest(**{**given, **change})
    with pytest.raises(SpecError, match="allowed: run, resume or sweep"):
        manifest(ASKED, ["serve", "x"])
