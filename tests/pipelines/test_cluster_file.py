"""pipelines/cluster.yaml: what is wrong is named before anything is compiled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'morphad[kubeflow]'")

from morphad.base.errors import BadInputError
from morphad.kubeflow.cluster import STEPS, load_cluster
from morphad.kubeflow.compiling import BATCH, TRAINING, render
from morphad.kubeflow.reach import check_lines
from morphad.settings.reading import resolve

REPO = Path(__file__).resolve().parents[2]


Change = Callable[[dict[str, Any]], object]


def load_changed(folder: Path, change: Change) -> None:
    settings = YAML(typ="safe").load(REPO / "pipelines" / "cluster.yaml")
    change(settings)
    with (folder / "cluster.yaml").open("w") as stream:
        YAML(typ="safe").dump(settings, stream)
    load_cluster(folder / "cluster.yaml")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda s: s["steps"]["train"].update(gpus=1), "steps.train.gpus: unknown key"),
        (lambda s: s["steps"].update(polish={}), "polish"),
        (lambda s: s["steps"].pop("promote"), "`steps` lacks promote"),
        (lambda s: s["steps"]["train"]["memory"].update(request="32Gi"), "at most `limit` 16Gi"),
        (lambda s: s["steps"]["train"]["memory"].update(limit="16 GB"), "steps.train.memory.limit = '16 GB'"),
        (lambda s: s["steps"]["train"]["cpu"].update(request="8500m"), "at most `limit` 8"),
        (lambda s: s["steps"]["train"].update(cpu={"request": 4}), "steps.train.cpu.request = 4"),
        (lambda s: s["steps"]["ingest"].update(secrets=["s4"]), "'s4' is not a name under `secrets`"),
        (lambda s: s["steps"]["ingest"].update(volumes=["images"]), "'images' is not a name under `volumes`"),
        (
            lambda s: s["volumes"].update(images={"claim": "morphad-state", "mount": "/data"}),
            "mounted as state already",
        ),
        (lambda s: s["volumes"].update(images={"claim": "c", "mount": "/state/x"}), "volumes.images.mount: '/state/x'"),
        (lambda s: s["volumes"].update(images={"claim": "c", "mount": "/state/"}), "must lie apart"),
        (lambda s: s["volumes"].update(images={"claim": "c", "mount": "data"}), "volumes.images.mount = 'data'"),
        (lambda s: s["volumes"].update(images={"claim": "c"}), "volumes.images.mount"),
        (lambda s: s["steps"]["promote"].update(cache=True), "steps.promote.cache"),
        (lambda s: s["steps"]["split"].update(cache=True), "steps.split.cache"),
        (lambda s: s["steps"]["batch_merge"].update(patience_minutes=5), "steps.batch_merge.patience_minutes"),
        (lambda s: s["steps"]["ingest"].update(patience_minutes=-1), "steps.ingest.patience_minutes = -1"),
        (lambda s: s["steps"]["train"]["tolerations"][0].update(value="x"), "`operator` Equal"),
        (lambda s: s["steps"]["train"].update(ephemeral_storage="8 GB"), "steps.train.ephemeral_storage = '8 GB'"),
        (lambda s: s["steps"]["train"].update(priority_class="high"), "steps.train.priority_class: unknown key"),
        (lambda s: s["steps"]["train"].update(labels={"a team": "x"}), "a team"),
        (lambda s: s.update(labels={"team": "two words"}), "labels.team = 'two words'"),
        (
            lambda s: s["steps"]["train"].update(node_affinity=[{"key": "gpu", "operator": "Exists", "values": ["a"]}]),
            "`values` do not belong to `operator` Exists",
        ),
        (
            lambda s: s["steps"]["train"].update(node_affinity=[{"key": "gpu", "operator": "Gt", "values": []}]),
            "`operator` Gt needs one value",
        ),
        (lambda s: s["secrets"]["s3"]["environment"].update(region="aws region"), "aws region"),
        (lambda s: s["state"].update(mount="state"), "state.mount = 'state'"),
        (lambda s: s.update(parallelism=0), "parallelism = 0"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, change: Change, names: str) -> None:
    with pytest.raises(BadInputError) as refused:
        load_changed(tmp_path, change)
    assert names in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "cluster.yaml"))


@pytest.mark.parametrize("pipeline", [TRAINING, BATCH])
def test_images_on_a_volume_are_mounted_in_the_steps_that_are_named(pipeline: str, tmp_path: Path) -> None:
    settings = YAML(typ="safe").load(REPO / "pipelines" / "cluster.yaml")
    settings["volumes"] = {"images": {"claim": "camera-images", "mount": "/data"}}
    for name in ("ingest", "batch_plan", "batch_predict"):
        settings["steps"][name]["volumes"] = ["images"]
    YAML(typ="safe").dump(settings, tmp_path / "cluster.yaml")
    rendered = render(tmp_path / "cluster.yaml", pipeline)
    _, platform = YAML(typ="safe").load_all(rendered)
    mounts = {
        name.removeprefix("exec-"): [(mount["constant"], mount["mountPath"]) for mount in pod["pvcMount"]]
        for name, pod in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items()
    }
    state, images = ("morphad-state", "/state"), ("camera-images", "/data")
    steps = {name for name, found in mounts.items() if found == [state, images]}
    assert steps == ({"ingest"} if pipeline == TRAINING else {"batch-plan", "batch-predict"})
    assert all(mounts[name] == [state] for name in mounts.keys() - steps)


def test_pods_get_what_places_and_names_them(tmp_path: Path) -> None:
    settings = YAML(typ="safe").load(REPO / "pipelines" / "cluster.yaml")
    settings["labels"], settings["annotations"] = {"plant.example/cost": "inspection"}, {"note": "line 3: all of it"}
    settings["steps"]["train"] |= {
        "labels": {"plant.example/cost": "training"},
        "ephemeral_storage": "20Gi",
        "node_affinity": [
            {"key": "gpu", "operator": "In", "values": ["a100", "h100"]},
            {"key": "gpu.memory", "operator": "Gt", "values": ["40"]},
            {"key": "spot", "operator": "DoesNotExist", "weight": 50},
        ],
    }
    YAML(typ="safe").dump(settings, tmp_path / "cluster.yaml")
    spec, platform = YAML(typ="safe").load_all(render(tmp_path / "cluster.yaml", TRAINING))
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    train, split = pods["exec-train"], pods["exec-split"]
    for pod, cost in ((train, "training"), (split, "inspection")):
        assert pod["podMetadata"] == {
            "labels": {"plant.example/cost": cost},
            "annotations": {"note": "line 3: all of it"},
        }
    must, preferred = train["nodeAffinity"]  # of several musts in terms of their own, Kubernetes would ask for any
    assert [(each["key"], each["values"]) for each in must["matchExpressions"]] == [
        ("gpu", ["a100", "h100"]),
        ("gpu.memory", ["40"]),
    ]
    assert "weight" not in must
    assert preferred == {"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}], "weight": 50}
    assert "nodeAffinity" not in split
    (scratch,) = (mount for mount in train["emptyDirMounts"] if mount["volumeName"] == "scratch")
    assert (scratch["sizeLimit"], scratch["mountPath"]) == ("20Gi", "/scratch")
    container = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert {"name": "TMPDIR", "value": "/scratch"} in container["env"]


def test_a_secret_may_be_missing_where_the_file_says_so(tmp_path: Path) -> None:
    settings = YAML(typ="safe").load(REPO / "pipelines" / "cluster.yaml")
    settings["secrets"]["s3"]["optional"] = True
    YAML(typ="safe").dump(settings, tmp_path / "cluster.yaml")
    rendered = render(tmp_path / "cluster.yaml", TRAINING)
    _, platform = YAML(typ="safe").load_all(rendered)
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    given = {(secret["secretName"], secret["optional"]) for pod in pods for secret in pod.get("secretAsEnv", ())}
    assert given == {("morphad-s3", True), ("morphad-mlflow", False)}


def test_what_pods_read_must_lie_on_a_volume_of_their_step(tmp_path: Path) -> None:
    settings = YAML(typ="safe").load(REPO / "pipelines" / "cluster.yaml")
    settings["volumes"] = {"images": {"claim": "camera-images", "mount": "/data/"}}
    settings["steps"]["ingest"]["volumes"] = ["images"]
    YAML(typ="safe").dump(settings, tmp_path / "cluster.yaml")
    cluster = load_cluster(tmp_path / "cluster.yaml")

    def check(verdicts: str = "", weights: str = "packaged", **ingest: str | bool) -> None:
        line = {"ingest": {**ingest, "verdicts": verdicts}, "train": {"weights": weights}}
        check_lines(resolve({"lines": {"pcb": line}}), ["pcb"], cluster)

    check(source="folder", path="/data/pcb", verdicts="/data/verdicts.csv", weights="/state/weights.safetensors")
    check(source="listing", path="/state/pcb.csv")
    check(source="s3", path="s3://camera/pcb", verdicts="s3://camera/verdicts.csv")
    check(source="demo", path="mono")
    for given, names in (
        ({"path": "camera"}, "lines.pcb.ingest.path = 'camera': pods of step ingest have a volume at /state, /data"),
        ({"path": "/database"}, "lines.pcb.ingest.path = '/database'"),
        ({"path": "/data", "verdicts": "verdicts.csv"}, "lines.pcb.ingest.verdicts = 'verdicts.csv'"),
        ({"path": "/data", "weights": "/data/w.pt"}, "steps.train.volumes"),
        ({"path": "/data", "in_place": True}, "pods of step validate have a volume at /state only"),
    ):
        with pytest.raises(BadInputError) as refused:
            check(**given)
        assert names in str(refused.value)


@pytest.mark.parametrize(
    ("text", "names"), [("", "expected keys"), ("a: [", "not valid YAML"), (None, "--cluster FILE")]
)
def test_a_file_that_is_no_such_file_is_named(tmp_path: Path, text: str | None, names: str) -> None:
    path = tmp_path / "cluster.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInputError) as refused:
        load_cluster(path)
    assert names in str(refused.value)


def test_on_one_machine_lines_follow_each_other_and_nothing_waits_to_be_tried_again() -> None:
    cluster = load_cluster()
    alone = cluster.for_one_machine()
    assert alone.parallelism == 1
    assert all(alone.steps[name].retry is None for name in STEPS)
    assert cluster.steps["register"].retry is not None
