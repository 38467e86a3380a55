"""Small parts of networks: activations by the name that a config has, and which linear layers can be replaced."""

from __future__ import annotations

from timm.layers import Mlp
from torch import Tensor, nn

from model.config import Activation


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x) (Hendrycks and Gimpel 2016, section 2)."""

    def forward(self, values: Tensor) -> Tensor:
        """Any shape -> the same."""
        return values * (1.702 * values).sigmoid()


def make_activation(name: Activation) -> nn.Module:
    """Return the activation module of a config's name."""
    if name == "quick_gelu":
        return QuickGelu()
    if name == "relu":
        return nn.ReLU()
    return nn.GELU(approximate="tanh" if name == "gelu_tanh" else "none")


def linear_children(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Return a module's own linear layers that it calls as such, with their names.

    Those whose weight timm's BEiT and Swin v2 read themselves are left out: another layer in their place would not be called.
    """
    return [
        (name, child)
        for name, child in module.named_children()
        if type(child) is nn.Linear and not (name == "qkv" and hasattr(module, "q_bias"))
    ]


def activation_child(module: nn.Module) -> tuple[str, nn.Module] | None:
    """Return the GELU or ReLU that a perceptron computes right after its first linear layer, with its name; None without one.

    Perceptrons are timm's Mlp, and sequences of a layer, an activation and another layer.
    """
    if isinstance(module, nn.Sequential):
        parts: list[tuple[str, nn.Module]] = list(module.named_children())[:3]
        kinds = [type(part) for _, part in parts]
        is_known = len(parts) == 3 and kinds[0] is nn.Linear and kinds[1] in (nn.GELU, nn.ReLU)
        return parts[1] if is_known else None
    if isinstance(module, Mlp) and type(module.fc1) is nn.Linear and type(module.act) in (nn.GELU, nn.ReLU):
        return "act", module.act
    return None
