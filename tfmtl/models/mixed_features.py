"""What a trunk reads of a network under construction whose rows are mixed in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import seed_of
from tfmtl.layers import Mixup
from tfmtl.layers.noise.mixup import MixupPartners
from tfmtl.models.encoders import FeatureEncoder


class MixedFeatures:
    """Mixes all encodings with the same partners; see `Regularization.mixup`.

    Args:
        features: of the network.
        alpha: of the Beta distribution, above 0.
    """

    def __init__(self, features: FeatureEncoder, alpha: float) -> None:
        self._features = features
        draw = MixupPartners(alpha, seed_of("mixup", features.seed), name="mixup_partners")
        self._draw = draw(next(iter(features.inputs.values())))
        self._mixed: dict[str, Any] = {}

    def mix(self, encoding: Any, name: str) -> Any:
        """Return an encoding [B, d] mixed; the same name gives the same tensor."""
        if name not in self._mixed:
            self._mixed[name] = Mixup(name=f"{name}_mixup")((encoding, *self._draw))
        return self._mixed[name]

    def encode(self, names: Sequence[str] = (), tables: str = "") -> Any:
        """Return the mixed encodings of features joined, [B, d]; see `tfmtl.layers.FeatureEncodings`."""
        parts = (tables or "shared", *names)
        return self.mix(self._features.encode(names, tables), "_".join(parts))

    def embed(self, name: str) -> tuple[Any, Any]:
        """Refuse: lists of different lengths have no mixture."""
        raise ValueError(f"A trunk cannot read embeddings, here of {name!r}, under mixup; read encodings instead.")

    def embed_target(self, history: str) -> Any:
        """Refuse like `embed`."""
        return self.embed(history)
