"""The map methods by name: the values of the option `maps`."""

from __future__ import annotations

from model.errors import ConfigError
from model.maps.attention import AttentionMaps
from model.maps.gradient import GradientMaps
from model.maps.methods import MapMethod
from model.maps.occlusion import OcclusionMaps
from model.maps.variants import MeanMaps, NormMaps, ResidualMaps, StandardizedMaps

_METHODS: tuple[MapMethod, ...] = (
    AttentionMaps(), GradientMaps(), MeanMaps(), NormMaps(), StandardizedMaps(), ResidualMaps(), OcclusionMaps(),
)  # fmt: skip
MAP_METHODS: dict[str, MapMethod] = {method.name: method for method in _METHODS}


def find_map_method(name: str) -> MapMethod | None:
    """Return the method of a name, None for "none". Raises ConfigError for an unknown one."""
    if name == "none":
        return None
    if name not in MAP_METHODS:
        raise ConfigError(f"maps is {name!r}; it must be one of none, {', '.join(MAP_METHODS)}")
    return MAP_METHODS[name]
