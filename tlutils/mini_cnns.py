"""Mini networks of the other image families, built from torchvision's own blocks."""

from collections.abc import Callable

from .backbones import Backbone

MINIS: dict[str, Callable[[], Backbone]] = {}
