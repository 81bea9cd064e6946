"""Publishing a detector: one run, one logged model, one version, however often it is tried or killed.

A version is created last, with its tags in the same call, from a run and a model that are complete by then. So a
version that exists is whole, and an attempt that was killed before leaves a run in state RUNNING, which the next
attempt marks KILLED.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

import morphad
from morphad.base.errors import BadInputError
from morphad.base.files import read_json
from morphad.base.text import masked, masked_settings
from morphad.model.saved import detector_hash
from morphad.registry import trail_store, versions
from morphad.registry.account import authenticated_account
from morphad.registry.connection import Connection
from morphad.registry.records import (
    CHALLENGER,
    CHAMPION,
    PREFIX,
    DatasetFacts,
    Registration,
    Version,
    as_params,
    code_revision,
    fit_names,
    model_name,
)

# What the code that travels with a model imports, directly or through these. Pinned as installed at publication.
REQUIREMENTS = (
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "ruamel.yaml",
    "safetensors",
    "scikit-learn",
    "scipy",
    "timm",
    "torch",
    "torchvision",
    "tqdm",
)

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "image")]),
    outputs=Schema(
        [
            ColSpec(DataType.double, "score"),
            ColSpec(DataType.boolean, "rejected", required=False),
            ColSpec(DataType.double, "p_value", required=False),
            ColSpec(DataType.double, "threshold", required=False),
            ColSpec(DataType.string, "reason", required=False),
            ColSpec(DataType.binary, "heatmap", required=False),
        ]
    ),
    params=ParamSchema([ParamSpec("heatmap", DataType.boolean, default=False)]),
)

# Where a run keeps the data that its version was made from: the manifest with roles, and the frozen holdout.
DATA, MANIFEST, HOLDOUT = "data", "manifest.parquet", "holdout.json"
REPORT, CARD = "report", "card.md"

# Characters of a version's description; MLflow's database on PostgreSQL refuses more.
LONGEST_DESCRIPTION = 5000
_CUT = f"\n\n(Cut at {LONGEST_DESCRIPTION:,} characters. The whole card is {REPORT}/{CARD} of the run.)\n"

# Written by later steps about a version; those of an earlier version must not travel with this one.
_NOT_OF_THIS_RUN = {"registration.json", "decision.json"}


def publish(
    connection: Connection,
    line: str,
    detector_folder: Path,
    report_folder: Path,
    *,
    params: dict[str, Any],
    metrics: dict[str, float],
    tags: dict[str, str],
    dataset: DatasetFacts,
    card: str = "",
    actor: str,
) -> Registration:
    """See `Registry.publish`."""
    identity = {
        f"{PREFIX}line": line,
        f"{PREFIX}detector_hash": detector_hash(detector_folder),
        f"{PREFIX}data_hash": dataset.data_hash,
    }
    if not report_folder.is_dir():
        raise BadInputError(f"{report_folder}: no such folder; run the evaluate step first")
    all_tags = {
        **masked_settings(tags),
        **identity,
        f"{PREFIX}holdout_id": dataset.holdout_id,
        f"{PREFIX}holdout_labels": dataset.holdout_labels,
        f"{PREFIX}code_revision": code_revision(),
        f"{PREFIX}version": morphad.__version__,
        f"{PREFIX}guarantee": _guarantee(detector_folder),
    }
    step_run = os.environ.get("MLFLOW_RUN_ID", "").strip()  # in a session it is not there
    with connection.session(make=True) as client:
        all_tags |= {f"{PREFIX}by": masked(actor), f"{PREFIX}account": authenticated_account(connection.uri) or ""}
        experiment = connection.experiment_id()
        versions.ensure_registered(client, line)  # before minutes of sending: not everybody may make one
        there = _same(client, line, identity)
        if there:
            return _settled(client, line, there[0], created=False)
        _bury_unfinished(client, experiment, identity)
        run_tags = {**all_tags, **_parent(client, step_run)}
        with mlflow.start_run(experiment_id=experiment, run_name=line, tags=run_tags) as run:
            run_id = run.info.run_id
            try:
                _log_facts(client, run_id, params, metrics, dataset)
                _log_report(client, run_id, report_folder)
                if card:
                    client.log_text(run_id, card, f"{REPORT}/{CARD}")
                    client.set_tag(run_id, MLFLOW_RUN_NOTE, _fitted(card))
                _log_data(client, run_id, dataset)
                model_uri = _log_model(line, detector_folder, all_tags)
                version = _create_version(
                    client, line, model_uri, run_id, tags=all_tags, identity=identity, description=_fitted(card)
                )
                return _settled(client, line, version, created=version.run_id == run_id)
            except BaseException:
                connection.hurry()  # start_run now marks the run FAILED; a server that is gone must not cost minutes
                raise


def _parent(client: MlflowClient, step_run: str) -> dict[str, str]:
    """The tag that hangs a run below the one that Kubeflow's MLflow plugin keeps for the step.

    The plugin names its run in MLFLOW_RUN_ID, and writes parameters and metrics of the step there itself. So nothing is
    written there from here. A run that this server does not have is of another server, and is left out.

    References:
        https://www.kubeflow.org/docs/components/pipelines/user-guides/integrations/mlflow/overview/
    """
    if not step_run:
        return {}
    try:
        client.get_run(step_run)
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED"}:
            raise
        return {}
    return {MLFLOW_PARENT_RUN_ID: step_run}


def _fitted(card: str) -> str:
    """A card as a version's description: cut between two lines, and saying so, where MLflow wants it shorter."""
    if len(card) <= LONGEST_DESCRIPTION:
        return card
    return card[: LONGEST_DESCRIPTION - len(_CUT) + 1].rpartition("\n")[0].rstrip() + _CUT


def _guarantee(detector_folder: Path) -> str:
    """What the detector's threshold promises, in its own words."""
    calibration = read_json(detector_folder / "detector.json").get("calibration") or {}
    return str(calibration.get("guarantee", ""))


@contextmanager
def _if_allowed() -> Iterator[None]:
    """Tidy up if one may: a trainer may delete nothing, and what is left does no harm."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise


def _same(client: MlflowClient, line: str, identity: dict[str, str]) -> list[Version]:
    """Versions of this very detector on this very data, oldest first."""
    return versions.all_versions(client, line, " and ".join(f"tags.`{k}` = '{v}'" for k, v in identity.items()))


def _bury_unfinished(client: MlflowClient, experiment: str, identity: dict[str, str]) -> None:
    """Mark runs of an earlier attempt that was killed; drop the models that it, or a failed one, never registered."""
    clause = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
    for run in client.search_runs([experiment], f"attributes.status != 'FINISHED' and {clause}"):
        orphans = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run.info.run_id}'")
        for orphan in orphans:
            with _if_allowed():
                client.delete_logged_model(orphan.model_id)
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, status="KILLED")


def _log_facts(
    client: MlflowClient, run_id: str, params: dict[str, Any], metrics: dict[str, float], dataset: DatasetFacts
) -> None:
    now = time.time_ns() // 1_000_000  # ms since the epoch
    client.log_batch(
        run_id,
        metrics=[Metric(name, float(value), now, 0) for name, value in fit_names(metrics).items()],
        # Settings hold addresses, and addresses may hold passwords.
        params=[Param(name, value) for name, value in fit_names(as_params(masked_settings(params))).items()],
    )
    facts = Dataset(
        name=dataset.manifest.parent.name or dataset.manifest.stem,
        digest=dataset.data_hash[:36],  # MLflow's longest digest
        source_type="local",
        source=json.dumps({"uri": dataset.manifest.as_posix()}),
        profile=json.dumps({**dataset.counts, "data_hash": dataset.data_hash, "holdout_id": dataset.holdout_id}),
    )
    client.log_inputs(run_id, [DatasetInput(facts, [InputTag("mlflow.data.context", "training and holdout")])])


def _log_report(client: MlflowClient, run_id: str, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and relative.as_posix() not in _NOT_OF_THIS_RUN:
            client.log_artifact(run_id, str(path), (Path(REPORT) / relative.parent).as_posix())


def _log_data(client: MlflowClient, run_id: str, dataset: DatasetFacts) -> None:
    """Keep what the version was made from: after a rollback it is again what new images are compared with."""
    for path, name in ((dataset.manifest, MANIFEST), (dataset.holdout, HOLDOUT)):
        if path is not None and path.is_file():
            with tempfile.TemporaryDirectory(prefix="morphad-") as scratch:
                copy = Path(shutil.copyfile(path, Path(scratch) / name))
                client.log_artifact(run_id, str(copy), DATA)


def _log_model(line: str, detector_folder: Path, tags: dict[str, str]) -> str:
    """Log the detector with the code that runs it; the active run is its source."""
    with tempfile.TemporaryDirectory(prefix="morphad-") as scratch:
        detector, package = Path(scratch) / "detector", Path(scratch) / "morphad"
        # A copy, because MLflow refuses links, as DVC may make them, and for one name inside every version.
        shutil.copytree(detector_folder, detector)
        # Without what tools leave in a source tree (caches, editors' files).
        shutil.copytree(Path(morphad.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        info = mlflow.pyfunc.log_model(
            name=model_name(line),
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={"detector": str(detector)},
            code_paths=[str(package)],
            pip_requirements=[pinned(name) for name in REQUIREMENTS],
            signature=SIGNATURE,
            tags=tags,
        )
    return str(info.model_uri)


def pinned(name: str) -> str:
    """A requirement for the installed version, without the local part (+cpu) that no package index knows."""
    return f"{name}=={installed_version(name).split('+', 1)[0]}"


def _create_version(
    client: MlflowClient,
    line: str,
    model_uri: str,
    run_id: str,
    *,
    tags: dict[str, str],
    identity: dict[str, str],
    description: str,
) -> Version:
    """Create the version; if a retried request or a second publisher made one too, the oldest stays."""
    entity = client.create_model_version(
        model_name(line),
        source=model_uri,
        run_id=run_id,
        tags=tags,
        description=description or None,
        model_id=model_uri.removeprefix("models:/"),
    )
    oldest = _same(client, line, identity)[0]
    if oldest.number != int(entity.version):
        with _if_allowed():
            client.delete_model_version(model_name(line), entity.version)
    return oldest


def _settled(client: MlflowClient, line: str, version: Version, *, created: bool) -> Registration:
    """What follows a version, done again at no cost where it was done before: the alias, the run's end."""
    # What was decided on stays as the decision left it: `dvc repro` comes here each time.
    decided = not created and trail_store.read(client, line).of_version(version.number)
    if not decided and CHAMPION not in version.aliases and CHALLENGER not in version.aliases:
        client.set_registered_model_alias(model_name(line), CHALLENGER, str(version.number))
    if client.get_run(version.run_id).info.status != "FINISHED" and not created:
        client.set_terminated(version.run_id, status="FINISHED")
    return Registration(version.run_id, version.model_name, version.number, version.model_uri, created)
