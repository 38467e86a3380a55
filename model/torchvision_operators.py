"""Lets torchvision, and with it timm, import beside a torch that its compiled operators do not fit.

The package index's torchvision is the CUDA build. Beside a CPU build of torch its extension cannot be
loaded, the operators `nms` and `qnms` stay undeclared, and `import torchvision` raises "operator
torchvision::nms does not exist". Declaring the two schemas first is enough: nobody here calls them.
Where torchvision loads by itself (a GPU build, or a CPU wheel of its own) nothing is declared.

This is the one module that acts at import: it must have run before timm is imported.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = ("nms", "qnms")
_kept: list[torch.library.Library] = []  # a Library's declarations vanish with the object


def declare_missing_operators() -> bool:
    """Declare torchvision's two schemas if its extension cannot load; say whether that was needed."""
    if _kept or _extension_loads():
        return bool(_kept)
    library = torch.library.Library("torchvision", "DEF")
    for name in _SCHEMAS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    return True


def _extension_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # no torchvision: importing timm will say so better than this module could
    for path in sorted(Path(spec.origin).parent.glob("_C.*")):
        try:
            torch.ops.load_library(str(path))
        except (ImportError, OSError):
            continue
        return True
    return False


declare_missing_operators()
