"""The compiled batch prediction pipeline: up to date, valid for Kubeflow, and complete."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from google.protobuf import json_format
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from morphad.kubeflow.cluster import BATCH_STEPS

REPO = Path(__file__).resolve().parents[2]
COMPILED = REPO / "pipelines" / "compiled" / "batch-predict.yaml"


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(COMPILED))


@pytest.fixture(scope="module")
def tasks(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = dict(documents[0]["root"]["dag"]["tasks"])
    for component in documents[0]["components"].values():
        found |= component.get("dag", {}).get("tasks", {})
    return {name.replace("-", "_"): task for name, task in found.items()}


def test_both_documents_are_what_kubeflow_reads(documents: list[dict[str, Any]]) -> None:
    json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())
    for pod in documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        json_format.ParseDict(pod, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    assert components.load_component_from_file(str(COMPILED)).name == "morphad-batch-predict"


def test_every_pod_has_its_limits_its_secrets_and_the_volume(documents: list[dict[str, Any]]) -> None:
    executors = documents[0]["deploymentSpec"]["executors"]
    pods = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    names = {name: f"exec-{name.replace('_', '-')}" for name in BATCH_STEPS}
    assert set(executors) == set(names.values())
    secrets = {}
    for name, key in names.items():
        container = executors[key]["container"]
        assert container["image"] == "localhost/morphad-python:0.1.0"
        assert not any("pip install" in word for word in container["command"])
        given = {f"resource{what}{which}" for what in ("Cpu", "Memory") for which in ("Request", "Limit")}
        assert given <= set(container["resources"])
        assert [(pvc["constant"], pvc["mountPath"]) for pvc in pods[key]["pvcMount"]] == [("morphad-state", "/state")]
        secrets[name] = {secret["secretName"] for secret in pods[key].get("secretAsEnv", ())}
    assert secrets == {
        "batch_plan": {"morphad-s3", "morphad-mlflow"},
        "batch_predict": {"morphad-s3"},
        "batch_merge": set(),
    }


def test_shards_fan_out_with_one_model_and_are_repeated(tasks: dict[str, dict[str, Any]]) -> None:
    (loop,) = (task for task in tasks.values() if "parameterIterator" in task)
    assert loop["iteratorPolicy"]["parallelismLimit"] == 4
    assert loop["dependentTasks"] == ["batch-plan"]
    shard = tasks["batch_predict"]["inputs"]
    assert set(shard["artifacts"]) == {"model", "batch"}  # settled before the loop
    assert set(shard["parameters"]) == {"line", "shard", "shards"}  # none from a task outside the loop but the item
    for name in ("batch_plan", "batch_predict"):
        assert tasks[name]["retryPolicy"]["maxRetryCount"] >= 3
        assert not tasks[name]["cachingOptions"].get("enableCache")


def test_a_run_needs_a_line_and_its_images(documents: list[dict[str, Any]]) -> None:
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    needed = {name for name, parameter in parameters.items() if not parameter.get("isOptional")}
    assert needed == {"line", "images"}
    assert parameters["settings_json"]["defaultValue"] == ""  # the first step says who gives them


def test_types_of_artifacts_are_those_that_the_user_interface_draws(documents: list[dict[str, Any]]) -> None:
    outputs = {
        f"{name.removeprefix('comp-')}.{key}": artifact["artifactType"]["schemaTitle"]
        for name, component in documents[0]["components"].items()
        if name.startswith("comp-batch-")
        for key, artifact in component.get("outputDefinitions", {}).get("artifacts", {}).items()
    }
    assert outputs == {
        "batch-plan.model": "system.Model",
        "batch-plan.batch": "system.Dataset",
        "batch-predict.predictions": "system.Dataset",
        "batch-merge.predictions": "system.Dataset",
        "batch-merge.summary": "system.Markdown",
    }
