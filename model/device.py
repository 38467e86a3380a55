"""The device policy: which device, numeric types and number of threads the network computes with.

The same machine always gets the same policy: nothing is timed (docs/decisions.md).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from model.cpu import available_threads, has_fast_bfloat16
from model.errors import ConfigError

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LARGE_DECODER = 30_000_000  # parameters: in float32 more than a processor's cache holds
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


@dataclass(frozen=True, kw_only=True, slots=True)
class DevicePolicy:
    """The device and what is computed in which type on it."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32  # of the encoder, and of the products of a training step
    num_threads: int = 0  # of the CPU; 0: torch's own setting stays
    allow_tf32: bool = False  # float32 products may use TensorFloat-32
    reason: str = "float32"  # why this dtype, for the log

    def decoder_dtype(self, num_parameters: int) -> torch.dtype:
        """Return the dtype of a decoder.

        On a CPU a step of a few rows is bound by memory: a large decoder gains from smaller weights, a small one, which stays
        in the processor's cache, computes in float32.
        """
        if self.device.type == "cpu" and num_parameters < _LARGE_DECODER:
            return torch.float32
        return self.dtype

    def apply(self) -> None:
        """Set torch's threads and TF32 for this process."""
        if self.num_threads:
            torch.set_num_threads(self.num_threads)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high" if self.allow_tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = self.allow_tf32  # convolutions: torch allows it by default


def choose_policy(device: str = "auto", dtype: str = "auto", num_threads: int = 0) -> DevicePolicy:
    """Return the policy for the names that a user gives: device auto, cpu, cuda, cuda:N or mps; dtype a DtypeName.

    `auto` prefers a GPU, and bfloat16 on GPUs that have it, else float16; on a CPU the dtype follows from the processor.
    `num_threads` 0 is the container's CPU quota. Raises ConfigError.
    """
    chosen = choose_device(device)
    if dtype != "auto" and dtype not in _DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; it must be one of 'auto', {', '.join(map(repr, _DTYPES))}")
    if dtype == "float16" and chosen.type == "cpu":
        raise ConfigError("dtype is 'float16', which CPUs compute slowly; use 'bfloat16', 'float32' or a GPU")
    torch_dtype, reason = (_DTYPES[dtype], f"{dtype} by option") if dtype != "auto" else _auto_dtype(chosen)
    threads = num_threads or available_threads()
    return DevicePolicy(device=chosen, dtype=torch_dtype, num_threads=threads, allow_tf32=dtype == "auto", reason=reason)


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name: auto, cpu, cuda, cuda:N, mps. Raises ConfigError if it is unknown or missing here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    device_type, _, index = name.partition(":")
    if device_type not in ("cpu", "cuda", "mps") or (index and (device_type != "cuda" or not index.isdigit())):
        raise ConfigError(f"device is {name!r}; it must be auto, cpu, cuda, cuda:N or mps")
    if device_type == "mps" and not _has_mps():
        raise ConfigError("device is 'mps', but this machine has no Apple GPU; use auto or cpu")
    if device_type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise ConfigError(
                f"device is {name!r}, but torch finds {count} NVIDIA GPUs; use auto or cpu, or check the driver and that this is "
                "a CUDA build of torch"
            )
    return torch.device(name)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Return the context in which products compute in `dtype`: torch.autocast, or nothing for float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy a CPU tensor to a device, without waiting for the copy where the device allows it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, dtype, non_blocking=True)
    return tensor.to(device, dtype)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the device, or the CPU's allocator, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY)


def synchronize(device: torch.device) -> None:
    """Wait for the queued work of a GPU, so that a clock measures the work and not its launch."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def release_memory(device: torch.device) -> None:
    """Give cached memory of a GPU back to its driver."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def device_memory(device: torch.device) -> dict[str, int]:
    """Return bytes of a GPU's memory: allocated to tensors, reserved by torch, and in total; {} for a CPU."""
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        return {
            "allocated": torch.cuda.memory_allocated(device), "reserved": torch.cuda.memory_reserved(device), "total": total,
        }  # fmt: skip
    if device.type == "mps":
        return {"allocated": torch.mps.current_allocated_memory(), "reserved": torch.mps.driver_allocated_memory()}
    return {}


def num_parameters(module: nn.Module) -> int:
    """Return the number of values in a module's parameters."""
    return sum(value.numel() for value in module.parameters())


def _auto_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    if device.type == "cuda":
        # torch.cuda.is_bf16_supported asks the current device only.
        if torch.version.hip or torch.cuda.get_device_properties(device).major >= 8:
            return torch.bfloat16, "bfloat16: this GPU has it"
        return torch.float16, "float16: this GPU has no bfloat16"
    if device.type == "mps":
        return torch.float32, "float32: half precision has not been checked on Apple GPUs"
    if has_fast_bfloat16():
        return torch.bfloat16, "bfloat16: this processor has instructions for it (AMX or AVX512-BF16)"
    return torch.float32, "float32: this processor has no fast bfloat16 (AMX or AVX512-BF16)"


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
