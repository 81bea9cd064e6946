"""docs/guide/kubeflow.md: its manifests are Kubernetes', its names are the project's, its commands exist."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from morphad import cli
from morphad.kubeflow import cli as pipelines_cli
from morphad.kubeflow.cluster import load_cluster

REPO = Path(__file__).resolve().parents[1]
PAGE = (REPO / "docs" / "guide" / "kubeflow.md").read_text(encoding="utf-8")
CLUSTER = load_cluster()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def documents() -> list[dict[str, Any]]:
    return [document for block in blocks("yaml") for document in YAML(typ="safe").load_all(block)]


def manifests() -> list[dict[str, Any]]:
    return [document for document in documents() if "kind" in document]


def commands() -> list[str]:
    lines = [line.split(" # ")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line.removeprefix("watch -n 30 ") for line in lines if line]


@pytest.mark.parametrize("manifest", manifests(), ids=lambda m: f"{m['kind']} {m['metadata']['name']}")
def test_manifests_are_what_kubernetes_takes(manifest: dict[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate").validate
    validate(manifest, "1.33", strict=True)


def test_pods_name_the_claim_of_the_state_and_its_mount() -> None:
    for spec in (manifest["spec"] for manifest in manifests() if manifest["kind"] == "Pod"):
        assert [volume["persistentVolumeClaim"]["claimName"] for volume in spec["volumes"]] == [CLUSTER.state.claim]
        assert [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]] == [CLUSTER.state.mount]


def test_images_on_a_volume_are_settings_of_the_cluster_that_fit_the_claim(tmp_path: Path) -> None:
    (excerpt,) = (document for document in documents() if "kind" not in document)
    settings = YAML(typ="safe").load(REPO / "pipelines" / "cluster.yaml")
    settings["volumes"] = excerpt["volumes"]
    for name, step in excerpt["steps"].items():
        settings["steps"][name] |= step
    YAML(typ="safe").dump(settings, tmp_path / "cluster.yaml")
    claims = {manifest["metadata"]["name"] for manifest in manifests() if manifest["kind"] == "PersistentVolumeClaim"}
    cluster = load_cluster(tmp_path / "cluster.yaml")
    for step in ("ingest", "batch_plan", "batch_predict"):
        assert {volume.claim for volume in cluster.mounted(step)} == {CLUSTER.state.claim, *claims}
    assert CLUSTER.mounted("ingest") == [CLUSTER.state]


def test_secrets_have_the_names_and_keys_of_the_cluster_file(tmp_path: Path) -> None:
    files = dict(re.findall(r"^cat (\S+\.env) +# (.*)$", PAGE, re.MULTILINE))
    made = {}
    for line in commands():
        match = re.fullmatch(r"kubectl -n plant create secret generic (\S+) --from-env-file=(\S+)", line)
        if match:
            content = re.sub(r"=\S*\s*", "=x\n", files[match[2]])
            (tmp_path / match[2]).write_text(content)
            made[match[1]] = {entry.partition("=")[0] for entry in content.splitlines()}
            if shutil.which("kubectl"):
                done = subprocess.run(
                    [*shlex.split(line), "--dry-run=client", "-o", "yaml"],
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
                assert set(YAML(typ="safe").load(done.stdout)["data"]) == made[match[1]]
    assert made == {secret.name: set(secret.environment) for secret in CLUSTER.secrets.values()}


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("morphad ")])
def test_commands_are_morphads(line: str) -> None:
    words = shlex.split(line)[1:]
    parser = pipelines_cli._parser() if words[0] in {"pipeline", "schedule"} else cli._parser()
    parser.parse_args(words)  # ends the process for words that it does not know


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("morphad pipeline compile")])
def test_the_pipelines_compile_as_the_page_says(line: str, tmp_path: Path) -> None:
    words = shlex.split(line)[3:]
    out = tmp_path / words[words.index("--out") + 1]
    given = [*words[: words.index("--out")], "--out", str(out)]
    assert cli.main(["pipeline", "compile", *given]) == 0
    assert out.exists()


def test_messages_on_the_page_are_those_of_the_code() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for folder in ("pipelines", "src") for path in (REPO / folder).rglob("*.py")
    )
    for words in (
        "no Kubeflow to talk to",
        "no answer (",
        "not logged in",
        "what answers is not Kubeflow's API",
        "not allowed",
        "this Kubeflow has profiles",
        "stale: components",
        "has no version",
        "has 5 fields",
        "is no line of the settings",
        "changed by others meanwhile",
        "A pod waits",
        "CUDA does not work here",
        "trained on the CPU although",
        "was ended by",
        "have a volume at",
    ):
        assert words in PAGE, words
        assert words in sources, words
