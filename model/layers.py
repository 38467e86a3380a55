"""Small parts of networks: activations by the name that a config has, and which linear layers can be replaced."""

from __future__ import annotations

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
