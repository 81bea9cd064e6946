"""pipelines/cluster.yaml as frozen, checked settings, and their application to the tasks of a pipeline."""

from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self, get_args

from kfp import kubernetes
from kfp.dsl import PipelineTask
from pydantic import Field, ValidationError, model_validator

from components.image import IMAGE, with_cuda
from morphad.base import patience
from morphad.base.errors import BadInputError
from morphad.kubeflow.pods import (
    AcceleratorSettings,
    Bytes,
    CpuSettings,
    Label,
    LabelValue,
    MemorySettings,
    NodeAffinitySettings,
    RetrySettings,
    TolerationSettings,
)
from morphad.kubeflow.project import project_file
from morphad.settings import Settings
from morphad.settings.explaining import SettingsError, explain
from morphad.settings.reading import read_yaml
from morphad.steps.line_state import RUN

SCRATCH = "/scratch"
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where data loaders and NCCL expect it

TrainingStep = Literal["ingest", "validate", "split", "train", "calibrate", "evaluate", "register", "promote", "notify"]
BatchStep = Literal["batch_plan", "batch_predict", "batch_merge"]
Step = TrainingStep | BatchStep
STEPS: tuple[TrainingStep, ...] = get_args(TrainingStep)
BATCH_STEPS: tuple[BatchStep, ...] = get_args(BatchStep)

# Steps that read the images' place, the line's state or MLflow: a cached result would be yesterday's.
_LOOK_OUTSIDE: frozenset[Step] = frozenset(
    {"ingest", "validate", "split", "register", "promote", "notify", "batch_plan", "batch_predict"}
)

_PATIENCE = 10  # minutes

# Steps that need what may be away (S3, MLflow, the volume of the state), and wait for it.
_WAITING: frozenset[Step] = frozenset((*STEPS, "batch_plan", "batch_predict"))

# What kfp calls the longest back-off is Argo's `maxDuration`: no repetition begins later after the step's first start,
# and one that is under way then is ended. A week is longer than any step.
_RETRY_WINDOW = "604800s"

# The label by which Kubeflow marks a pod with the run that it is of; its value is that of `PIPELINE_JOB_ID`.
_RUN_LABEL = "metadata.labels['pipeline/runid']"

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", description="a name in Kubernetes")]
Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
MountPath = Annotated[str, Field(pattern=r"^/[^:]+$", description="an absolute path in the pod")]


class SecretSettings(Settings):
    """A Kubernetes secret and the environment variables that its keys become."""

    name: Name
    environment: dict[str, Variable] = Field(min_length=1, description="key of the secret: environment variable")
    optional: bool = Field(default=False, description="a pod starts without the secret too")


class VolumeSettings(Settings):
    """A claim and where pods find it."""

    claim: Name
    mount: MountPath

    def holds(self, path: str) -> bool:
        """Whether a path of pods lies on it."""
        return ".." not in PurePosixPath(path).parts and PurePosixPath(path).is_relative_to(self.mount)


class StateSettings(VolumeSettings):
    """The volume that outlives pods."""

    mount: MountPath = "/state"


class StepSettings(Settings):
    """What the pods of one step get."""

    image: str | None = Field(default=None, min_length=1, description="in place of the project's")
    cpu: CpuSettings = CpuSettings()
    memory: MemorySettings = MemorySettings()
    ephemeral_storage: Bytes | None = Field(
        default=None, description=f"how much a pod may write for the time of its life, in {SCRATCH}; more ends it"
    )
    accelerator: AcceleratorSettings | None = None
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels that a node must have")
    tolerations: tuple[TolerationSettings, ...] = Field(default=(), strict=False)
    node_affinity: tuple[NodeAffinitySettings, ...] = Field(
        default=(), strict=False, description="further conditions on nodes, musts and preferences"
    )
    labels: dict[Label, LabelValue] = Field(default_factory=dict, description="of the pod, besides those of all steps")
    annotations: dict[Label, str] = Field(default_factory=dict, description="of the pod, besides those of all steps")
    shared_memory: Bytes | None = Field(default=None, description="size of /dev/shm; counts as memory of the pod")
    secrets: tuple[str, ...] = Field(default=(), strict=False, description="names under `secrets`")
    volumes: tuple[str, ...] = Field(default=(), strict=False, description="names under `volumes`")
    retry: RetrySettings | None = None
    patience_minutes: int | None = Field(
        default=None,
        ge=0,
        le=24 * 60,
        description=f"how long to wait while S3, MLflow or the state is away; none: {_PATIENCE}",
    )
    cache: bool = Field(default=False, description="an earlier result for equal inputs may be taken")

    @property
    def gpus(self) -> int:
        """How many GPUs a pod gets."""
        return 0 if self.accelerator is None else self.accelerator.count


class ClusterSettings(Settings):
    """What pipelines/cluster.yaml holds."""

    parallelism: int = Field(default=4, ge=1, le=100, description="lines, or shards of a batch, at once")
    labels: dict[Label, LabelValue] = Field(
        default_factory=dict, description="of all pods, such as for quotas or costs"
    )
    annotations: dict[Label, str] = Field(default_factory=dict, description="of all pods")
    state: StateSettings
    volumes: dict[str, VolumeSettings] = Field(default_factory=dict, description="claims beside that of `state`")
    secrets: dict[str, SecretSettings] = Field(default_factory=dict)
    steps: dict[Step, StepSettings]

    @model_validator(mode="after")
    def _steps_are_whole(self) -> Self:
        missing = [name for name in (*STEPS, *BATCH_STEPS) if name not in self.steps]
        if missing:
            raise ValueError(f"`steps` lacks {', '.join(missing)}; each of the steps is listed, if only as {{}}")
        for name, step in self.steps.items():
            for key, names, known in (("secrets", step.secrets, self.secrets), ("volumes", step.volumes, self.volumes)):
                unknown = [each for each in names if each not in known]
                if unknown:
                    raise ValueError(f"steps.{name}.{key}: {unknown[0]!r} is not a name under `{key}`")
            if step.patience_minutes is not None and name not in _WAITING:
                raise ValueError(f"steps.{name}.patience_minutes: the step needs no service and never waits")
            if step.cache and name in _LOOK_OUTSIDE:
                raise ValueError(f"steps.{name}.cache: the step reads what is outside of the run and cannot be cached")
        return self

    @model_validator(mode="after")
    def _volumes_lie_apart(self) -> Self:
        every = {"state": self.state, **{f"volumes.{name}": volume for name, volume in self.volumes.items()}}
        for (one, first), (other, second) in combinations(every.items(), 2):
            if first.claim == second.claim:
                raise ValueError(f"{other}.claim: {second.claim!r} is mounted as {one} already; a pod mounts it once")
            if first.holds(second.mount) or second.holds(first.mount):
                raise ValueError(f"{other}.mount: {second.mount!r} and {one}.mount {first.mount!r} must lie apart")
        return self

    def mounted(self, step: Step) -> list[VolumeSettings]:
        """The volumes that pods of a step have, the state first."""
        return [self.state, *(self.volumes[name] for name in self.steps[step].volumes)]

    def for_one_machine(self) -> "ClusterSettings":
        """The same for a run without a cluster: one line after the other, a failed step at once a failed line.

        Nobody gives the steps GPUs: they take what there is, in as many processes as `train.processes` says.
        """
        without = {"retry": None, "accelerator": None, "ephemeral_storage": None}
        steps = {name: step.model_copy(update=without) for name, step in self.steps.items()}
        return self.model_copy(update={"parallelism": 1, "steps": steps})


def load_cluster(path: Path | None = None) -> ClusterSettings:
    """Read and check the cluster's settings; without a path those of the project in the current folder.

    Raises:
        BadInputError: The file is missing, is not YAML, or holds an unknown key or a bad value; the message names
            file, key, value and what is allowed.
    """
    path = path or project_file("cluster.yaml")
    raw = read_yaml(path, "--cluster")
    try:
        if not isinstance(raw, dict):
            raise SettingsError("expected keys `parallelism`, `state`, `volumes`, `secrets` and `steps`")
        return ClusterSettings.model_validate(raw)
    except ValidationError as error:
        raise BadInputError(f"{path}: {explain(error, ClusterSettings)}") from error
    except SettingsError as error:
        raise BadInputError(f"{path}: {error}") from error


def place(task: PipelineTask, name: Step, cluster: ClusterSettings) -> PipelineTask:
    """Give a task what the cluster's settings say for its step."""
    step = cluster.steps[name]
    task.set_caching_options(step.cache)
    task.set_cpu_request(step.cpu.request).set_cpu_limit(step.cpu.limit)
    task.set_memory_request(step.memory.request).set_memory_limit(step.memory.limit)
    for volume in cluster.mounted(name):
        kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.mount)
    if (image := _image(step)) is not None:
        task.set_container_image(image)
    if step.accelerator is not None:
        task.set_accelerator_type(step.accelerator.type).set_accelerator_limit(step.accelerator.count)
    if step.retry is not None:
        task.set_retry(
            step.retry.times,
            backoff_duration=f"{step.retry.wait_seconds}s",
            backoff_factor=step.retry.factor,
            backoff_max_duration=_RETRY_WINDOW,
        )
    if name == "register" and (digest := (_image(step) or IMAGE).partition("@")[2]):
        task.set_env_variable("MORPHAD_IMAGE_DIGEST", digest)  # an image cannot know its own
    if name in _WAITING:
        minutes = _PATIENCE if step.patience_minutes is None else step.patience_minutes
        task.set_env_variable(patience.VARIABLE, str(minutes))
    if name in STEPS:
        kubernetes.use_field_path_as_env(task, RUN, _RUN_LABEL)
    _place_on_nodes(task, step)
    for key, value in {**cluster.labels, **step.labels}.items():
        kubernetes.add_pod_label(task, key, value)
    for key, value in {**cluster.annotations, **step.annotations}.items():
        kubernetes.add_pod_annotation(task, key, value)
    _mount_scratch(task, step)
    for secret in (cluster.secrets[key] for key in step.secrets):
        kubernetes.use_secret_as_env(
            task, secret_name=secret.name, secret_key_to_env=dict(secret.environment), optional=secret.optional
        )
    return task


def _place_on_nodes(task: PipelineTask, step: StepSettings) -> None:
    """Which nodes a pod may run on, and which are preferred."""
    for key, value in step.node_selector.items():
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    # What must hold is one term: of several, Kubernetes asks for any.
    if musts := [condition.expression for condition in step.node_affinity if condition.weight is None]:
        kubernetes.add_node_affinity(task, musts)
    for condition in step.node_affinity:
        if condition.weight is not None:
            kubernetes.add_node_affinity(task, [condition.expression], weight=condition.weight)
    for toleration in step.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))


def _mount_scratch(task: PipelineTask, step: StepSettings) -> None:
    """Memory that processes share, and a place for files that live as long as the pod."""
    if step.shared_memory is not None:
        kubernetes.empty_dir_mount(
            task, volume_name="shm", mount_path=SHARED_MEMORY, medium="Memory", size_limit=step.shared_memory
        )
    if step.ephemeral_storage is not None:
        kubernetes.empty_dir_mount(
            task, volume_name="scratch", mount_path=SCRATCH, medium="", size_limit=step.ephemeral_storage
        )
        task.set_env_variable("TMPDIR", SCRATCH)


def _image(step: StepSettings) -> str | None:
    """What a step runs in, in place of the project's image: its own, or with NVIDIA's GPUs the one with CUDA."""
    if step.image is not None or step.accelerator is None or not step.accelerator.type.startswith("nvidia.com/"):
        return step.image
    return with_cuda(IMAGE)
