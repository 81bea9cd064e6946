"""Where and in which precision the network runs."""

from typing import Literal

import torch

from morphad.errors import BadInputError


def resolve_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that the settings name; auto is CUDA where there is one.

    Raises:
        BadInputError: CUDA is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInputError(
            "train.device = 'cuda': no CUDA device is visible; set it to auto or cpu, or check the driver"
        )
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def autocast_dtype(
    precision: Literal["auto", "float32", "bfloat16", "float16"], device: torch.device
) -> torch.dtype | None:
    """The type that autocast should use, or None for plain float32.

    auto is bfloat16 where the device computes in it natively: CUDA from Ampere on, CPUs with AVX-512 BF16 or AMX.
    On an older CUDA device auto is float16.

    Raises:
        BadInputError: float16 is asked for on a CPU.
    """
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if native else torch.float16
        features = torch.cpu.get_capabilities()
        return torch.bfloat16 if features.get("avx512_bf16") or features.get("amx_bf16") else None
    if precision == "float16" and device.type != "cuda":
        raise BadInputError(
            f"train.optimiser.precision = 'float16': not on {device.type}; set it to auto, bfloat16 or float32"
        )
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
