"""deploy/kubeflow: what Kubernetes takes, and what fits the settings of the cluster."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from morphad.kubeflow import cli
from morphad.kubeflow.cluster import load_cluster

REPO = Path(__file__).resolve().parents[2]
FOLDER = REPO / "deploy" / "kubeflow"
KUBERNETES = "1.33"
CLUSTER = load_cluster(REPO / "pipelines" / "cluster.yaml")


def read(name: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(FOLDER / name))


def named(manifest: dict[str, Any]) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


KUSTOMIZATION = read("kustomization.yaml")[0]
MANIFESTS = [manifest for name in [*KUSTOMIZATION["resources"], "secrets.yaml"] for manifest in read(name)]
BY_NAME = {named(manifest): manifest for manifest in MANIFESTS}


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]
    pod: dict[str, Any] = (spec["jobTemplate"]["spec"] if manifest["kind"] == "CronJob" else spec)["template"]
    return pod


CRON_JOBS = [manifest for manifest in MANIFESTS if manifest["kind"] == "CronJob"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=named)
def test_manifests_are_what_kubernetes_takes(manifest: dict[str, Any]) -> None:
    checker = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    checker.validate(manifest, KUBERNETES, strict=True)
    with pytest.raises(checker.ValidationError):
        checker.validate({**manifest, "speck": {}}, KUBERNETES, strict=True)


def test_every_file_is_a_resource_but_the_secrets() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert files - {*KUSTOMIZATION["resources"]} == {"secrets.yaml"}


def test_kustomize_puts_them_into_the_namespace_with_the_plant_s_image() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = list(YAML(typ="safe").load_all(done.stdout))
    assert {manifest["metadata"]["namespace"] for manifest in made} == {KUSTOMIZATION["namespace"]}
    (image,) = KUSTOMIZATION["images"]
    jobs = [manifest for manifest in made if manifest["kind"] in {"Job", "CronJob"}]
    assert len(jobs) == 3
    (config,) = (manifest["metadata"]["name"] for manifest in made if manifest["kind"] == "ConfigMap")
    for job in jobs:
        (container,) = pod_of(job)["spec"]["containers"]
        assert container["image"] == f"{image['newName']}:{image['newTag']}"
        if job["kind"] == "CronJob":  # the map's name changes with its content
            assert container["envFrom"] == [{"configMapRef": {"name": config}}]


def test_claim_mount_and_owner_are_those_of_the_cluster_file() -> None:
    claim, owner = read("state.yaml")
    assert claim["metadata"]["name"] == CLUSTER.state.claim
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    spec = pod_of(owner)["spec"]
    assert [volume["persistentVolumeClaim"]["claimName"] for volume in spec["volumes"]] == [CLUSTER.state.claim]
    (container,) = spec["containers"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == [CLUSTER.state.mount]
    user = re.search(r"^USER (\d+:\d+)$", (REPO / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert f"chown {user[1]} {CLUSTER.state.mount} " in container["command"][-1]


def test_secrets_have_the_names_and_keys_of_the_cluster_file_and_no_values() -> None:
    found = {secret["metadata"]["name"]: secret["stringData"] for secret in read("secrets.yaml")}
    assert {name: set(data) for name, data in found.items()} == {
        secret.name: set(secret.environment) for secret in CLUSTER.secrets.values()
    }
    assert {value for data in found.values() for value in data.values()} == {""}
    for job in CRON_JOBS:
        for variable in pod_of(job)["spec"]["containers"][0]["env"]:
            if secret := variable["valueFrom"].get("secretKeyRef"):
                assert variable["name"] == CLUSTER.secrets["s3"].environment[secret["key"]]
                assert secret["name"] == CLUSTER.secrets["s3"].name


def test_the_network_policy_is_of_the_pods_that_the_pipelines_make() -> None:
    policy = BY_NAME["NetworkPolicy morphad-pods"]["spec"]
    chosen = policy["podSelector"]["matchLabels"]
    assert chosen.items() <= CLUSTER.labels.items()
    assert "ingress" not in policy
    for job in CRON_JOBS:
        assert chosen.items() <= pod_of(job)["metadata"]["labels"].items()


@pytest.mark.parametrize("job", CRON_JOBS, ids=named)
def test_cron_jobs_run_one_at_a_time_as_nobody_in_particular(job: dict[str, Any]) -> None:
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert job["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
    spec = pod_of(job)["spec"]
    assert spec["serviceAccountName"] == BY_NAME["ServiceAccount morphad-operator"]["metadata"]["name"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    (token,) = (volume for volume in spec["volumes"] if volume["name"] == "token")
    assert token["projected"]["sources"][0]["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"


@pytest.mark.parametrize("job", CRON_JOBS, ids=named)
def test_commands_of_cron_jobs_are_morphads(job: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    shell = pod_of(job)["spec"]["containers"][0]["command"][-1]
    words = shlex.split(shell.split("exec morphad pipeline ")[1])
    try:
        cli._parser().parse_args(["pipeline", *words])
    except SystemExit:
        if f"invalid choice: '{words[0]}'" in capsys.readouterr().err:
            pytest.skip(f"this morphad has no `pipeline {words[0]}`")
        raise
