"""What must happen before torch and timm are imported, whatever the entry point: model/__init__.py imports this first.

1. OMP_WAIT_POLICY=PASSIVE, unless it is set: OpenMP reads it once, when torch is loaded. Threads that spin next to a busy
   process are 10 to 25 times slower than threads that sleep.
2. torchvision's operators. The package index's torchvision is the CUDA build; with a CPU build of torch its extension
   cannot be loaded, the operators `nms` and `qnms` stay undeclared, and `import torchvision` raises "operator
   torchvision::nms does not exist". Declaring the two schemas first is enough: nothing here calls them. Where torchvision
   loads by itself (a GPU build, or its own CPU wheel) nothing is declared.

This is the one module that acts when it is imported.
"""

import importlib.util
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

_SCHEMAS = ("nms", "qnms")
_libraries: list[torch.library.Library] = []  # a Library's declarations end with the object


def declare_missing_operators() -> bool:
    """Declare torchvision's two schemas if its extension cannot be loaded; return whether that was needed."""
    if _libraries or _extension_loads():
        return bool(_libraries)
    library = torch.library.Library("torchvision", "DEF")
    for name in _SCHEMAS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    return True


def _extension_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # no torchvision: the error of importing timm is clearer than one from here
    for path in sorted(Path(spec.origin).parent.glob("_C.*")):
        try:
            torch.ops.load_library(str(path))
        except (ImportError, OSError):
            continue
        return True
    return False


declare_missing_operators()
