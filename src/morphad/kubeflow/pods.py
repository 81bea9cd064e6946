"""What one pod gets, as sections of pipelines/cluster.yaml: cores, memory, GPUs, nodes, repetitions."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from morphad.settings import Settings

_SUFFIXES = {"": 1, "m": 1e-3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

Cores = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?|[0-9]+m)$", description='cores, such as "2" or "500m"')]
Bytes = Annotated[str, Field(pattern=r"^[0-9]+([MGT]|[KMGT]i)$", description="such as 512Mi or 4Gi")]
Label = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
        description="a key of labels in Kubernetes, such as team or plant.example/team",
    ),
]
LabelValue = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$", description="a label's value")
]


def _amount(quantity: str) -> float:
    digits = quantity.rstrip("".join(_SUFFIXES))
    return float(digits) * _SUFFIXES[quantity[len(digits) :]]


def bytes_of(quantity: str) -> int:
    """A quantity of memory as Kubernetes writes it, such as 512Mi, in bytes."""
    return int(_amount(quantity))


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
    """A taint of nodes that a pod tolerates."""

    key: str = Field(min_length=1)
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @model_validator(mode="after")
    def _value_fits_operator(self) -> Self:
        if (self.operator == "Equal") != (self.value is not None):
            raise ValueError("`value` belongs to `operator` Equal, and only to it")
        return self


class NodeAffinitySettings(Settings):
    """A condition on the labels of nodes: without `weight` it must hold, with it the node is preferred."""

    key: Label
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: tuple[LabelValue, ...] = Field(default=(), strict=False)
    weight: int | None = Field(default=None, ge=1, le=100)

    @model_validator(mode="after")
    def _values_fit_operator(self) -> Self:
        if self.operator in {"Exists", "DoesNotExist"}:
            if self.values:
                raise ValueError(f"`values` do not belong to `operator` {self.operator}")
        elif not self.values or (self.operator in {"Gt", "Lt"} and len(self.values) != 1):
            count = "one value" if self.operator in {"Gt", "Lt"} else "at least one value"
            raise ValueError(f"`operator` {self.operator} needs {count} in `values`")
        return self

    @property
    def expression(self) -> dict[str, object]:
        """As Kubernetes writes it."""
        return {"key": self.key, "operator": self.operator, "values": list(self.values)}


class RetrySettings(Settings):
    """How often a failed pod is tried again, and how long after."""

    times: int = Field(ge=1, le=20)
    wait_seconds: int = Field(default=30, ge=0, le=3600, description="before the first repetition")
    factor: float = Field(default=2.0, ge=1, le=10, description="by which each further wait is longer")
