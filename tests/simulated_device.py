"""A device that does not exist: CPU numbers under the name "simulated", so that code for another device runs without one.

    with simulated_device() as device:
        network.to(device)  # every tensor created or moved there says device "simulated:0"

What it shows: a CPU tensor that meets one of the device raises, as it would on a GPU; so does `.numpy()` on a tensor of the
device. Numbers are real, so results can be compared with the CPU's. What it cannot show: speed, memory, kernels that a GPU lacks,
non-determinism, streams. A CPU tensor without dimensions may meet the device's, and CPU indices may index it, as torch allows
on GPUs. Autograd across the device is not supported: gradients are off in the context, and torch.inference_mode is torch.no_grad
there, because tensors of wrapper classes cannot be viewed in inference mode.

It uses the private-use backend of torch.utils.backend_registration, written in Python (experimental in torch 2.13).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "simulated"
_CPU_TENSORS_ALLOWED = ("aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put", "aten::index_put_")
_libraries: list[torch.library.Library] = []  # torch cannot forget a backend: it is registered once per process


class _OnDevice(torch.Tensor):
    """A tensor that says that it is on the device; its numbers are in `cpu_tensor`."""

    cpu_tensor: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> _OnDevice:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=torch.device(NAME, 0),
        )
        tensor.cpu_tensor = values
        return tensor

    def tolist(self) -> Any:
        return self.cpu_tensor.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy; use Tensor.cpu() first")
        return self.cpu_tensor.numpy()

    def __repr__(self) -> str:
        return f"{self.cpu_tensor!r} on {NAME}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    on_device = [value for value in tensors if isinstance(value, _OnDevice)]
    name = func._schema.name
    if on_device and name not in _CPU_TENSORS_ALLOWED:
        for value in tensors:
            if not isinstance(value, _OnDevice) and value.dim() > 0:
                shape = tuple(value.shape)
                raise RuntimeError(f"{name}: expected all tensors on one device, but got {NAME} and cpu (shape {shape})")
    result_on_device = bool(on_device)
    if kwargs.get("device") is not None:
        result_on_device = torch.device(kwargs["device"]).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if name in ("aten::_local_scalar_dense", "aten::is_same_size"):
        result_on_device = False
    result = func(*tree_map(_plain, args), **tree_map(_plain, kwargs))
    known = {id(_plain(value)): value for value in on_device}  # a tensor that was changed in place stays the same object

    def wrap(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return known.get(id(value), _OnDevice(value) if result_on_device and not isinstance(value, _OnDevice) else value)

    return tree_map(wrap, result)


def _plain(value: Any) -> Any:
    return value.cpu_tensor if isinstance(value, _OnDevice) else value


def _register() -> None:
    """Register the backend; torch.tensor and Tensor.to bypass the mode and need kernels of their own."""
    if _libraries:
        return
    _setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("aten", "IMPL")

    def empty(size: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None, **_: Any) -> Any:
        return _OnDevice(torch.empty(size, dtype=dtype))

    def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Any:
        return _OnDevice(torch.empty_strided(size, stride, dtype=dtype))

    def copy_from(source: Any, target: Any, non_blocking: bool = False) -> Any:
        _plain(target).copy_(_plain(source))
        return target

    library.impl("empty.memory_format", empty, "PrivateUse1")
    library.impl("empty_strided", empty_strided, "PrivateUse1")
    library.impl("_copy_from", copy_from, "PrivateUse1")
    _libraries.append(library)


@contextlib.contextmanager
def simulated_device() -> Iterator[torch.device]:
    """While it is entered, the device exists in this thread."""
    _register()
    inference_mode = torch.inference_mode
    torch.inference_mode = torch.no_grad  # type: ignore[misc]
    try:
        with _Mode(), torch.no_grad():
            yield torch.device(NAME, 0)
    finally:
        torch.inference_mode = inference_mode  # type: ignore[misc]
