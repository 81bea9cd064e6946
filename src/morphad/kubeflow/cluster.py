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
from morphad.kubeflow.project import project_file
from morphad.settings import Settings
from morphad.settings.explaining import SettingsError, explain
from morphad.settings.reading import read_yaml
from morphad.steps.line_state import RUN

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

_SUFFIXES = {"": 1, "m": 1e-3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

Cores = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?|[0-9]+m)$", description='cores, such as "2" or "500m"')]
Bytes = Annotated[str, Field(pattern=r"^[0-9]+([MGT]|[KMGT]i)$", description="such as 512Mi or 4Gi")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", description="a name in Kubernetes")]
Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
MountPath = Annotated[str, Field(pattern=r"^/[^:]+$", description="an absolute path in the pod")]


def _amount(quantity: str) -> float:
    digits = quantity.rstrip("".join(_SUFFIXES))
    return float(digits) * _SUFFIXES[quantity[len(digits) :]]


class CpuSettings(Settings):
    """Cores that a pod is promised, and may use."""

    request: Cores = "1"
    limit: Cores = "2"

    @model_validator(mode="after")
    def _limit_holds_the_request(self) -> Self:
        if _amount(self.request) > _amount(self.limit):
            raise ValueError(f"`request` {self.request} must be at most `limit` {self.limit}")
        return self


class MemorySettings(Settings):
    """Memory that a pod is promised, and may use before it is killed."""

    request: Bytes = "2Gi"
    limit: Bytes = "4Gi"

    @model_validator(mode="after")
    def _limit_holds_the_request(self) -> Self:
        if _amount(self.request) > _amount(self.limit):
            raise ValueError(f"`request` {self.request} must be at most `limit` {self.limit}")
        return self


class AcceleratorSettings(Settings):
    """GPUs of a pod."""

    type: str = Field(default="nvidia.com/gpu", min_length=1, description="the resource's name on the nodes")
    count: int = Field(default=1, ge=1, le=16)


class TolerationSettings(Settings):
    """A taint of nodes that a pod bears."""

    key: str = Field(min_length=1)
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @model_validator(mode="after")
    def _value_fits_operator(self) -> Self:
        if (self.operator == "Equal") != (self.value is not None):
            raise ValueError("`value` belongs to `operator` Equal, and only to it")
        return self


class RetrySettings(Settings):
    """How often a failed pod is tried again, and how long after."""

    times: int = Field(ge=1, le=20)
    wait_seconds: int = Field(default=30, ge=0, le=3600, description="before the first repetition")
    factor: float = Field(default=2.0, ge=1, le=10, description="by which each further wait is longer")


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
    accelerator: AcceleratorSettings | None = None
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels that a node must have")
    tolerations: tuple[TolerationSettings, ...] = Field(default=(), strict=False)
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
        without = {"retry": None, "accelerator": None}
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


def bytes_of(quantity: str) -> int:
    """A quantity of memory as Kubernetes writes it, such as 512Mi, in bytes."""
    return int(_amount(quantity))


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
    for key, value in step.node_selector.items():
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    for toleration in step.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))
    if step.shared_memory is not None:
        kubernetes.empty_dir_mount(
            task, volume_name="shm", mount_path=SHARED_MEMORY, medium="Memory", size_limit=step.shared_memory
        )
    for secret in (cluster.secrets[key] for key in step.secrets):
        kubernetes.use_secret_as_env(
            task, secret_name=secret.name, secret_key_to_env=dict(secret.environment), optional=secret.optional
        )
    return task


def _image(step: StepSettings) -> str | None:
    """What a step runs in, in place of the project's image: its own, or with NVIDIA's GPUs the one with CUDA."""
    if step.image is not None or step.accelerator is None or not step.accelerator.type.startswith("nvidia.com/"):
        return step.image
    return with_cuda(IMAGE)
