"""The compiled training pipeline: up to date, valid for Kubeflow, and complete."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from google.protobuf import json_format
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from components.image import with_cuda
from morphad.base.errors import BadInputError
from morphad.kubeflow.cluster import SCRATCH, SHARED_MEMORY, STEPS, Step, load_cluster
from morphad.settings.reading import load_settings

REPO = Path(__file__).resolve().parents[2]
COMPILED = REPO / "pipelines" / "compiled" / "training.yaml"


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(COMPILED))


@pytest.fixture(scope="module")
def executors(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = documents[0]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor["container"] for name, executor in found.items()}


@pytest.fixture(scope="module")
def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): pod for name, pod in found.items()}


@pytest.fixture(scope="module")
def tasks(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = dict(documents[0]["root"]["dag"]["tasks"])
    for component in documents[0]["components"].values():
        found |= component.get("dag", {}).get("tasks", {})
    return found


def compile_with(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if name != "MORPHAD_IMAGE"}
    return subprocess.run(
        [sys.executable, "-m", "morphad.cli", "pipeline", "compile", *arguments],
        cwd=REPO,
        env=inherited | environment,
        text=True,
        capture_output=True,
        check=False,
    )


def test_what_is_committed_is_what_would_be_compiled() -> None:
    for seed in ("0", "1"):
        done = compile_with("--check", PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr


def test_a_stale_file_is_told_and_left_alone(tmp_path: Path) -> None:
    stale = tmp_path / "training.yaml"
    stale.write_text(COMPILED.read_text() + "\n")
    before = stale.read_text()
    done = compile_with("--check", "--out", str(stale))
    assert done.returncode == 1
    assert "morphad pipeline compile" in done.stderr
    assert stale.read_text() == before


def test_the_image_is_given_at_compile_time(tmp_path: Path) -> None:
    done = compile_with("--out", str(tmp_path / "training.yaml"), MORPHAD_IMAGE="registry/plant-python:7")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "training.yaml").read_text()
    assert text.count("image: registry/plant-python:7\n") == len(STEPS) - 1
    assert text.count("image: registry/plant-python:7-cuda\n") == 1


@pytest.mark.parametrize(
    ("image", "cuda"),
    [
        ("localhost:5000/plant/python:7", "localhost:5000/plant/python:7-cuda"),
        ("plant/python:7-cuda", "plant/python:7-cuda"),
        ("localhost:5000/plant/python", None),
        ("python", None),
        (f"plant/python:7@sha256:{'0' * 64}", None),
    ],
)
def test_the_image_with_cuda_is_told_from_the_tag(image: str, cuda: str | None) -> None:
    if cuda:
        assert with_cuda(image) == cuda
        return
    with pytest.raises(BadInputError, match=rf"^image '{image}': .*as `image` of those steps"):
        with_cuda(image)


def test_an_image_of_a_step_goes_before_that_with_cuda(tmp_path: Path) -> None:
    cluster = YAML(typ="safe").load(REPO / "pipelines" / "cluster.yaml")
    cluster["steps"]["train"]["image"] = "plant/own-python:1"
    YAML(typ="safe").dump(cluster, tmp_path / "cluster.yaml")
    out = tmp_path / "training.yaml"
    done = compile_with(
        "--cluster", str(tmp_path / "cluster.yaml"), "--out", str(out), MORPHAD_IMAGE="plant/python@sha256:0"
    )
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert set(re.findall(r"image: (\S+)", text)) == {"plant/python@sha256:0", "plant/own-python:1"}
    # It is on record in MLflow, where the step that registers names its image so.
    assert re.findall(r"name: MORPHAD_IMAGE_DIGEST\n +value: (\S+)", text) == ["sha256:0"]
    done = compile_with("--out", str(tmp_path / "other.yaml"), MORPHAD_IMAGE="plant/python@sha256:0")
    assert done.returncode == 2
    assert "morphad pipeline: image 'plant/python@sha256:0': " in done.stderr


def test_both_documents_are_what_kubeflow_reads(
    documents: list[dict[str, Any]], pods: dict[str, dict[str, Any]]
) -> None:
    json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())
    for pod in pods.values():
        json_format.ParseDict(pod, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_kubeflows_own_reader_takes_the_file(documents: list[dict[str, Any]]) -> None:
    read = components.load_component_from_file(str(COMPILED))
    assert json_format.MessageToDict(read.pipeline_spec) == {
        **documents[0],
        "schemaVersion": read.pipeline_spec.schema_version,
    }
    pods = read.platform_spec.platforms["kubernetes"].deployment_spec.executors
    assert {name.removeprefix("exec-") for name in pods} == set(STEPS)


def test_a_key_that_kubeflow_does_not_know_would_be_found(documents: list[dict[str, Any]]) -> None:
    """That the reader of the two tests above is a strict one."""
    for pod in documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        with pytest.raises(json_format.ParseError):
            json_format.ParseDict(
                {**pod, "nodeSelektor": {}}, kubernetes_executor_config_pb2.KubernetesExecutorConfig()
            )
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict({**documents[0], "rooot": {}}, pipeline_spec_pb2.PipelineSpec())


@pytest.mark.parametrize("name", STEPS)
def test_a_step_gets_what_the_file_of_the_cluster_says(
    name: Step,
    executors: dict[str, dict[str, Any]],
    pods: dict[str, dict[str, Any]],
    tasks: dict[str, dict[str, Any]],
) -> None:
    cluster = load_cluster()
    step, resources, task = cluster.steps[name], executors[name]["resources"], tasks[name]
    assert [resources[f"resource{key}"] for key in ("CpuRequest", "CpuLimit", "MemoryRequest", "MemoryLimit")] == [
        step.cpu.request,
        step.cpu.limit,
        step.memory.request,
        step.memory.limit,
    ]
    gpu = resources.get("accelerator")
    assert (gpu and (gpu["resourceType"], gpu["resourceCount"])) == (
        step.accelerator and (step.accelerator.type, str(step.accelerator.count))
    )
    retry = task.get("retryPolicy")
    assert (retry is None) == (step.retry is None)
    if retry and step.retry:
        assert retry == {
            "maxRetryCount": step.retry.times,
            "backoffDuration": f"{step.retry.wait_seconds}s",
            "backoffFactor": step.retry.factor,
            "backoffMaxDuration": "604800s",
        }
    assert task["cachingOptions"].get("enableCache", False) == step.cache
    secrets = {
        secret["secretName"]: {key["secretKey"]: key["envVar"] for key in secret["keyToEnv"]}
        for secret in pods[name].get("secretAsEnv", ())
    }
    assert secrets == {cluster.secrets[key].name: cluster.secrets[key].environment for key in step.secrets}
    (volume,) = pods[name]["pvcMount"]
    assert (volume["constant"], volume["mountPath"]) == (cluster.state.claim, cluster.state.mount)
    mounts = {each["mountPath"]: each["sizeLimit"] for each in pods[name].get("emptyDirMounts", ())}
    wanted = {SHARED_MEMORY: step.shared_memory, SCRATCH: step.ephemeral_storage}
    assert mounts == {path: size for path, size in wanted.items() if size is not None}
    assert pods[name].get("nodeSelector", {}).get("labels", {}) == step.node_selector
    assert pods[name].get("tolerations", []) == [each.model_dump(exclude_none=True) for each in step.tolerations]
    environment = executors[name].get("env", [])  # a secret's value could only be here
    scratch = step.ephemeral_storage is not None
    assert {each["name"]: each["value"] for each in environment} == {
        "MORPHAD_PATIENCE_MINUTES": "10",
        **({"TMPDIR": SCRATCH} if scratch else {}),
    }


def test_every_step_runs_in_the_project_s_image_and_installs_nothing(executors: dict[str, dict[str, Any]]) -> None:
    assert set(executors) == set(STEPS)
    images = {name: container["image"] for name, container in executors.items()}
    assert images.pop("train") == "localhost/morphad-python:0.1.0-cuda"  # it has a GPU
    assert set(images.values()) == {"localhost/morphad-python:0.1.0"}
    assert not any("pip install" in word for container in executors.values() for word in container["command"])


def test_training_has_a_gpu_its_nodes_and_shared_memory(
    executors: dict[str, dict[str, Any]], pods: dict[str, dict[str, Any]]
) -> None:
    gpu = executors["train"]["resources"]["accelerator"]
    assert (gpu["resourceType"], gpu["resourceCount"]) == ("nvidia.com/gpu", "1")
    assert pods["train"]["nodeSelector"] == {"labels": {"nvidia.com/gpu.present": "true"}}
    assert pods["train"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    (shared,) = pods["train"]["emptyDirMounts"]
    assert (shared["mountPath"], shared["medium"], shared["sizeLimit"]) == (SHARED_MEMORY, "Memory", "2Gi")
    assert [name for name in STEPS if "accelerator" in executors[name]["resources"]] == ["train"]


def test_so_many_gpus_are_so_many_processes(tmp_path: Path) -> None:
    cluster = (REPO / "pipelines" / "cluster.yaml").read_text()
    assert cluster.count("type: nvidia.com/gpu, count: 1}") == 1
    (tmp_path / "cluster.yaml").write_text(cluster.replace("gpu, count: 1}", "gpu, count: 4}"))
    done = compile_with("--cluster", str(tmp_path / "cluster.yaml"), "--out", str(tmp_path / "training.yaml"))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "training.yaml").read_text()
    (train,) = (
        component["dag"]["tasks"]["train"]
        for component in next(YAML(typ="safe").load_all(text))["components"].values()
        if "train" in component.get("dag", {}).get("tasks", {})
    )
    assert train["inputs"]["parameters"]["gpus"] == {"runtimeValue": {"constant": 4.0}}
    assert "resourceCount: '4'" in text


def test_why_a_run_was_started_goes_where_it_is_read(
    documents: list[dict[str, Any]], tasks: dict[str, dict[str, Any]]
) -> None:
    assert documents[0]["root"]["inputDefinitions"]["parameters"]["reason"]["defaultValue"] == "scheduled"
    told = {name for name in STEPS if "reason" in tasks[name]["inputs"]["parameters"]}
    assert told == {"register", "promote", "notify"}  # none of them cached


def test_every_step_has_limits_and_the_lasting_state(
    executors: dict[str, dict[str, Any]], pods: dict[str, dict[str, Any]]
) -> None:
    for name in STEPS:
        given = {f"resource{what}{which}" for what in ("Cpu", "Memory") for which in ("Request", "Limit")}
        assert given <= set(executors[name]["resources"])
        assert [(pvc["constant"], pvc["mountPath"]) for pvc in pods[name]["pvcMount"]] == [("morphad-state", "/state")]


def test_secrets_go_to_the_steps_that_need_them_and_no_others(pods: dict[str, dict[str, Any]]) -> None:
    given = {name: {secret["secretName"] for secret in pods[name].get("secretAsEnv", ())} for name in STEPS}
    assert {name: secrets for name, secrets in given.items() if secrets} == {
        "ingest": {"morphad-s3"},
        "split": {"morphad-mlflow"},
        "register": {"morphad-mlflow"},
        "promote": {"morphad-mlflow"},
    }
    (mlflow,) = pods["register"]["secretAsEnv"]
    assert {key["envVar"] for key in mlflow["keyToEnv"]} >= {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD"}


def test_steps_that_talk_to_services_are_repeated_with_growing_waits(tasks: dict[str, dict[str, Any]]) -> None:
    for name in ("ingest", "register", "promote", "train"):
        policy = tasks[name]["retryPolicy"]
        assert policy["maxRetryCount"] >= 3
        assert policy["backoffFactor"] > 1
        assert policy["backoffDuration"].endswith("s")
    assert "retryPolicy" not in tasks["validate"]


def test_only_steps_that_look_at_nothing_but_their_inputs_are_cached(tasks: dict[str, dict[str, Any]]) -> None:
    cached = {name for name in STEPS if tasks[name]["cachingOptions"].get("enableCache")}
    assert cached == {"train", "calibrate", "evaluate"}
    for name in cached:
        # The run's identifier differs each time, and so does the number of an artifact of a step that always runs.
        assert "run" not in tasks[name]["inputs"]["parameters"]
        given = tasks[name]["inputs"].get("artifacts", {}).values()
        assert {artifact["taskOutputArtifact"]["producerTask"] for artifact in given} <= cached


def test_what_train_and_its_followers_do_depends_on_something_new(
    documents: list[dict[str, Any]], tasks: dict[str, dict[str, Any]]
) -> None:
    (branch,) = (task for task in tasks.values() if "condition" in task.get("triggerPolicy", {}))
    assert branch["triggerPolicy"]["condition"] == "inputs.parameter_values['pipelinechannel--split-Output'] == 'yes'"
    body = documents[0]["components"][branch["componentRef"]["name"]]["dag"]["tasks"]
    assert set(body) == {"train", "calibrate", "evaluate", "register", "promote"}


def test_lines_run_beside_each_other_within_the_limit_and_the_end_is_told(
    documents: list[dict[str, Any]], tasks: dict[str, dict[str, Any]]
) -> None:
    (loop,) = (task for task in tasks.values() if "parameterIterator" in task)
    assert loop["iteratorPolicy"]["parallelismLimit"] == 4
    assert tasks["notify"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert "notify" in documents[0]["root"]["dag"]["tasks"]


def test_the_pipeline_holds_no_line(documents: list[dict[str, Any]]) -> None:
    defaults = documents[0]["root"]["inputDefinitions"]["parameters"]
    assert {name: given["defaultValue"] for name, given in defaults.items()} == {
        "lines": [], "seed": 0.0, "reason": "scheduled", "force": False, "free_at": 0.0, "state_root": "/state"
    }  # fmt: skip
    assert not any(line in COMPILED.read_text() for line in load_settings(REPO / "params.yaml").lines)


def test_types_of_artifacts_are_those_that_the_user_interface_draws(documents: list[dict[str, Any]]) -> None:
    outputs = {
        f"{name.removeprefix('comp-')}.{key}": artifact["artifactType"]["schemaTitle"]
        for name, component in documents[0]["components"].items()
        for key, artifact in component.get("outputDefinitions", {}).get("artifacts", {}).items()
    }
    assert outputs == {
        "ingest.data": "system.Dataset",
        "validate.findings": "system.Artifact",
        "validate.page": "system.HTML",
        "split.roles": "system.Dataset",
        "train.fitted": "system.Model",
        "calibrate.calibration": "system.Artifact",
        "evaluate.report": "system.Artifact",
        "evaluate.metrics": "system.Metrics",
        "evaluate.curves": "system.ClassificationMetrics",
        "evaluate.page": "system.HTML",
        "register.registration": "system.Artifact",
        "promote.decision": "system.Artifact",
        "promote.reasons": "system.Markdown",
        "notify.summary": "system.Markdown",
    }, json.dumps(outputs, indent=1)
