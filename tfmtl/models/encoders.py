"""Features as vectors: the inputs and embedding tables of a network under construction."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_known, require_positive_int, require_type
from tfmtl._identity import FIRST, UNKNOWN
from tfmtl._keras import keras, seed_of, spawn, tf
from tfmtl._names import layer_name
from tfmtl.data import Feature, IdSequence, Numeric, Preprocessor, Schema
from tfmtl.layers import Dropout, FeatureDropout, Fusion, MaskedMean
from tfmtl.layers.embeddings.joined import JoinedEmbedding
from tfmtl.layers.fusions.presence import Presence
from tfmtl.layers.marks import EncodingMark
from tfmtl.layers.noise.randomness import RandomMissing, RandomUnknown
from tfmtl.layers.number_bins import NumberBins
from tfmtl.models.regularization import Regularization

_INITIALIZER = keras.initializers.RandomUniform(-0.05, 0.05)

_SMALL = 10_000
"""Vocabularies with fewer indices share one table: look-ups cost by the number of tables more than by that of rows."""


class FeatureEncoder:
    """The inputs and embedding tables that all parts of one network share while it is connected.

    Args:
        preprocessor, embedding_dim, regularization, seed, poolings, fusion: as in `build_network`.

    Attributes:
        inputs: symbolic input of each feature by name.
        labels: summaries of the training labels by task.
    """

    def __init__(
        self,
        preprocessor: Preprocessor,
        embedding_dim: int | Mapping[str, int],
        regularization: Regularization,
        seed: int,
        poolings: Mapping[str, keras.layers.Layer] | None = None,
        fusion: Mapping[str, Fusion] | None = None,
    ) -> None:
        schema, statistics = preprocessor.schema, preprocessor.statistics
        self.poolings, self.fusion = dict(poolings or {}), dict(fusion or {})
        check_poolings(self.poolings, schema)
        check_fusion(self.fusion, schema)
        check_noise(regularization, schema, self.fusion)
        check_domain(regularization, preprocessor)
        self.schema, self.regularization, self.seed = schema, regularization, seed
        self.labels = statistics.labels
        self.inputs = {name: _input(feature) for name, feature in schema.features.items()}
        dims = embedding_dim if isinstance(embedding_dim, Mapping) else {"": embedding_dim}
        require_known([name for name in dims if name], schema.vocabularies, "vocabulary", "`embedding_dim`")
        self._widths = {name: dims.get(name, dims.get("", 32)) for name in schema.vocabularies}
        for name, width in self._widths.items():
            if width != 0 or name not in dims:
                require_positive_int(embedding_dim=width)
        self._read = {**self.inputs, **self._without_context(preprocessor)}
        self._sizes = {name: statistics.size(name) for name in schema.vocabularies}
        self._tables: dict[str, keras.layers.Embedding] = {}
        self._embedded: dict[str, tuple[Any, Any]] = {}
        self._encoded: dict[str, Any] = {}
        self._indices: dict[str, Any] = {}
        self._encodings: dict[tuple[str, ...], Any] = {}
        self._preprocessor = preprocessor

    def encode_role(self, role: str) -> Any:
        """Return the encoding [B, d] of the features in one role of the schema, or None if there are none."""
        given: Sequence[Feature] = getattr(self.schema, role)
        features = [feature for feature in given if not self._is_key(feature)]
        cure = f"The {role} needs a feature that is read: give one of these an `embedding_dim` above 0."
        require(bool(features) or not given or role == "context", cure, keys=[feature.name for feature in given])
        if not features:
            return None
        fused = self._fused(features, role) if role in self.fusion else self._joined(features, role)
        return _copy(self.regularization.adversarial or EncodingMark(), f"{role}_mark")(fused)

    def across_domains(
        self, towers: dict[str, Any], represented: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the outputs of the towers by side and of the trunk by task, after the `DomainAdversary` if any.

        It reads the outputs of the trunk together; without a trunk, each tower's alone, because a tower of one side
        must not depend on the other side.
        """
        adversary = self.regularization.domain
        if adversary is None or adversary.idle:
            return towers, represented
        known = {"num_domains": self._sizes[adversary.column] - FIRST}
        if represented:
            layer = _copy(adversary, "domain_adversary", **known)
            return towers, dict(zip(represented, layer([*represented.values()]), strict=True))
        return {
            side: _copy(adversary, f"{side}_domain_adversary", **known)(tower) for side, tower in towers.items()
        }, represented

    def encode(self, names: Sequence[str] = (), tables: str = "") -> Any:
        """Return the joined encodings of features [B, d]; see `tfmtl.layers.FeatureEncodings`."""
        known = self.schema.features
        require_known(names, known, "feature", "the schema")
        key = tables, *names
        if key not in self._encodings:
            name = _joined_name(tables or "shared", *names)
            features = [known[n] for n in names] or [f for f in known.values() if not self._is_key(f)]
            self._encodings[key] = self._joined(features, name, tables)
        return self._encodings[key]

    def embed(self, name: str) -> tuple[Any, Any]:
        """Return a feature's embeddings and indices; see `tfmtl.layers.FeatureEncodings`."""
        require_known([name], self.schema.features, "feature", "the schema")
        vocabulary = self.schema.features[name].vocabulary
        require(vocabulary is not None, f"Feature {name!r} holds numbers, which have no embedding.")
        return self._embed(name, str(vocabulary), "")

    def embed_target(self, history: str) -> Any:
        """Return the embedding of the candidate for a list of candidate ids; see `tfmtl.layers.FeatureEncodings`."""
        return self.embed(self._target_of(history))[0]

    def index_target(self, history: str) -> tuple[Any, Any]:
        """Return the indices of the candidate and of a list of its ids; see `tfmtl.layers.FeatureEncodings`."""
        return self._read[self._target_of(history)], self._read[history]

    def indices(self, name: str) -> tuple[Any, Any]:
        """Return a feature's indices as read and as in the row; see `tfmtl.layers.FeatureEncodings`."""
        ids = [feature.name for feature in self.schema.features.values() if feature.is_id]
        require_known([name], ids, "categorical feature", "the schema")
        return self._read[name], self.inputs[name]

    def _target_of(self, history: str) -> str:
        """Return the name of the candidate feature that shares its ids with a list, or raise."""
        require_known([history], self.schema.features, "feature", "the schema")
        ids = {feature.name for feature in self.schema.candidate if not feature.encoded_shape}
        feature = self.schema.features[history]
        require(
            bool(feature.encoded_shape) and feature.vocabulary in ids,
            f"Feature {history!r} holds no ids of a candidate feature; name an `IdSequence` of one of {sorted(ids)}.",
        )
        return str(feature.vocabulary)

    def _without_context(self, preprocessor: Preprocessor) -> dict[str, Any]:
        """Return the context features; training makes all of them missing in some rows, the same for each feature."""
        rate, seed = self.regularization.context_dropout, seed_of("context", self.seed)
        return {
            f.name: RandomMissing(
                rate, seed, preprocessor.encoded_missing(f.name).tolist(), name=layer_name(f"{f.name}_missing")
            )(self.inputs[f.name])
            for f in self.schema.context
            if rate and not self._is_key(f)
        }

    def _fused(self, features: Sequence[Feature], role: str) -> Any:
        groups = self.fusion[role].split([feature.name for feature in features])
        modalities = {name: [self.schema.features[part] for part in parts] for name, parts in groups.items()}
        vectors = {name: self._joined(parts, f"{role}_{name}") for name, parts in modalities.items()}
        presence = {
            name: Presence(name=layer_name(f"{role}_{name}_presence"))([self._read[part] for part in parts])
            for name, parts in groups.items()
        }
        rate, fusion = self.regularization.modality_dropout, self.fusion[role]
        fusion = fusion.with_modality_dropout(rate) if rate else fusion
        return _copy(fusion, f"{role}_fusion")((vectors, presence))

    def _joined(self, features: Sequence[Feature], name: str, tables: str = "") -> Any:
        by_width = collections.defaultdict(list)
        for feature in features:
            if self._is_small(feature) and _joined_name(tables, feature.name) not in self._embedded:
                by_width[self._widths[feature.name]].append(feature.name)
        together = {width: names for width, names in by_width.items() if len(names) > 1}
        encoded = [self._embed_together(names, width, name, tables) for width, names in together.items()]
        done = {n for names in together.values() for n in names}
        encoded += [self._encode(feature, tables) for feature in features if feature.name not in done]
        join = keras.layers.Concatenate(name=layer_name(f"{name}_encoding"))
        return join(encoded) if len(encoded) > 1 else encoded[0]

    def _is_small(self, feature: Feature) -> bool:
        readers = [f for f in self.schema.features.values() if f.vocabulary == feature.name]
        return feature.is_id and len(readers) == 1 and self._sizes[feature.name] < _SMALL and not self._is_key(feature)

    def _embed_together(self, names: Sequence[str], width: int, group: str, tables: str) -> Any:
        name = f"{group}_embedding_{width}"
        layer = JoinedEmbedding(
            {n: self._sizes[n] for n in names}, width, _INITIALIZER, self._seed_of(tables),
            activity_regularizer=self._penalty(), name=layer_name(name),
        )  # fmt: skip
        indices = self._disturbed(tf.stack([self._read[n] for n in names], axis=1), name, names)
        joined = self._dropped(layer(indices), name, len(names))
        for i, feature in enumerate(names):  # symbolic slices; only those that a layer reads become part of the network
            self._embedded[_joined_name(tables, feature)] = joined[:, i * width : (i + 1) * width], indices[:, i]
        return joined

    def _encode(self, feature: Feature, tables: str) -> Any:
        key = _joined_name(tables, feature.name)
        if key not in self._encoded:
            self._encoded[key] = feature.connect(self, tables)
        return self._encoded[key]

    def numbers(self, name: str) -> Any:
        """Return an encoded feature as the vector [B, d] that the network reads."""
        rate = self.regularization.feature_dropout
        if rate and name not in self._encoded:
            self._encoded[name] = self._left_out(self._read[name], name, rate)
        return self._encoded[name] if rate else self._read[name]

    def bins(self, name: str, edges: Sequence[float], own: str) -> Any:
        """Return the bin [B, 1] of a numeric feature in the row, by a layer `NumberBins` with the name `own`.

        Args:
            name: name of the feature.
            edges: ascending numbers in the unit of its column.
            own: name of the layer.
        """
        numbers = {n: feature for n, feature in self.schema.features.items() if isinstance(feature, Numeric)}
        require_known([name], numbers, "numeric feature", "the schema")
        raw = tf.constant(edges, numbers[name].raw_spec.dtype)
        encoded = numbers[name].encode(raw, self._preprocessor)[:, 0].numpy()
        return NumberBins(encoded.tolist(), name=layer_name(own))(self.inputs[name])

    def embedded(self, name: str, tables: str = "") -> Any:
        """Return the embedding [B, d] of an index, or [B, length, d] of a list of indices."""
        return self._embed(name, str(self.schema.features[name].vocabulary), tables)[0]

    def pooled(self, name: str, tables: str = "") -> Any:
        """Return the pooled embeddings [B, d] of a list of indices."""
        key, own = _joined_name(tables, name), self.poolings.get(name)
        pooling = MaskedMean(name=layer_name(f"{key}_mean")) if own is None else _copy(own, f"{key}_pooling")
        return pooling(self._embed(name, str(self.schema.features[name].vocabulary), tables))

    def _is_key(self, feature: Feature) -> bool:
        """Return whether a feature only names its row, since its embeddings have no coordinates."""
        return feature.vocabulary is not None and self._widths[feature.vocabulary] == 0

    def _embed(self, name: str, vocabulary: str, tables: str) -> tuple[Any, Any]:
        require(self._widths[vocabulary] > 0, f"Feature {name!r} has no embedding: its `embedding_dim` is 0.")
        key = _joined_name(tables, name)
        if key not in self._embedded:
            indices = self._indices_of(name)
            looked_up = self._table(vocabulary, tables)(indices)
            self._embedded[key] = self._dropped(looked_up, key), indices
        return self._embedded[key]

    def _indices_of(self, name: str) -> Any:
        if name not in self._indices:
            indices, augmentation = self._read[name], self.regularization.sequence
            if augmentation is not None and isinstance(self.schema.features[name], IdSequence):
                own = seed_of(str(augmentation.seed), self.seed)
                indices = _copy(augmentation, f"{name}_augmentation", seed=own)(indices)
            self._indices[name] = self._disturbed(indices, name, [name])
        return self._indices[name]

    def _disturbed(self, indices: Any, name: str, features: Sequence[str]) -> Any:
        """Return indices of one feature, or of several as columns, of which training makes some unknown."""
        rates = [self.regularization.unknown_rate_of(feature) for feature in features]
        if not any(rates):
            return indices
        rate: Any = rates if len(set(rates)) > 1 else rates[0]
        return RandomUnknown(rate, seed_of(name, self.seed), UNKNOWN, name=layer_name(f"{name}_unknown"))(indices)

    def _dropped(self, embedded: Any, name: str, features: int = 1) -> Any:
        """Return embeddings, from which training drops some coordinates and some features."""
        coordinates, whole = self.regularization.embedding_dropout, self.regularization.feature_dropout
        if coordinates:
            own = f"{name}_embedding_dropout"
            embedded = Dropout(coordinates, seed_of(own, self.seed), name=layer_name(own))(embedded)
        return self._left_out(embedded, name, whole, features) if whole else embedded

    def _left_out(self, encoded: Any, name: str, rate: float, features: int = 1) -> Any:
        own = f"{name}_feature_dropout"
        return FeatureDropout(rate, seed_of(own, self.seed), features, name=layer_name(own))(encoded)

    def _table(self, vocabulary: str, tables: str) -> keras.layers.Embedding:
        name = _joined_name(tables, vocabulary, "embedding")
        if name not in self._tables:
            self._tables[name] = keras.layers.Embedding(
                self._sizes[vocabulary],
                self._widths[vocabulary],
                embeddings_initializer=spawn(_INITIALIZER, 0, seed_of(vocabulary, self._seed_of(tables))),
                activity_regularizer=self._penalty(),
                name=layer_name(name),
            )
        return self._tables[name]

    def _seed_of(self, tables: str) -> int:
        return seed_of(tables, self.seed) if tables else self.seed

    def _penalty(self) -> Any:
        penalty = self.regularization.embedding_l2
        return keras.regularizers.L2(penalty) if penalty else None


def check_poolings(poolings: Mapping[str, Any], schema: Schema) -> None:
    """Raise unless every pooling is a layer for a feature that holds lists."""
    require_known(poolings, schema.features, "feature", "`poolings`")
    for name, pooling in poolings.items():
        require_type(pooling, keras.layers.Layer, f"poolings[{name!r}]", "Pass an instance such as AttentionPooling().")
        feature = schema.features[name]
        require(
            feature.vocabulary is not None and bool(feature.encoded_shape),
            f"`poolings` is for lists, but feature {name!r} is {type(feature).__name__}.",
        )


def check_fusion(fusion: Mapping[str, Any], schema: Schema) -> None:
    """Raise unless every fusion is for a role of the schema that has features."""
    roles = [role for role in ("query", "candidate", "context") if getattr(schema, role)]
    require_known(fusion, roles, "role", "`fusion`")
    for role, layer in fusion.items():
        require_type(layer, Fusion, f"fusion[{role!r}]", "Pass an instance such as ConcatFusion({...}).")


def check_noise(regularization: Regularization, schema: Schema, fusion: Mapping[str, Any]) -> None:
    """Raise if the regularization has noise for parts that the network lacks."""
    known = [name for name, feature in schema.features.items() if feature.vocabulary is not None]
    require_known(regularization.own_unknown_rates, known, "feature with a vocabulary", "`unknown_rate`")
    rate = regularization.modality_dropout
    require(not rate or bool(fusion), "`modality_dropout` needs a `fusion`; give a role one, or set it 0.")
    histories = [name for name, feature in schema.features.items() if isinstance(feature, IdSequence)]
    require(
        regularization.sequence is None or bool(histories),
        "`sequence` changes histories, but the schema has no `IdSequence`; leave it None.",
    )


def check_domain(regularization: Regularization, preprocessor: Preprocessor) -> None:
    """Raise unless the column of the domains is a categorical feature with several values, or there is none."""
    if regularization.domain is None:
        return
    column, known = regularization.domain.column, preprocessor.schema.features
    require_known([column], known, "feature", "the schema")
    kind = type(known[column]).__name__
    cure = "name a `Categorical` that holds the domain of a row."
    require(known[column].is_id, f"`domain` needs a categorical feature, but {column!r} is {kind}; {cure}")
    number = len(preprocessor.statistics.vocabularies[str(known[column].vocabulary)])
    require(number > 1, f"`domain` needs a feature with two or more values, but {column!r} has {number}; {cure}")


def _copy(layer: keras.layers.Layer, name: str, **changed: Any) -> Any:
    """Return a copy of a layer with another name, a seed derived from the name, and the arguments `changed`.

    Copies let one instance serve several features and networks without sharing weights between them.
    """
    return type(layer).from_config({**_reseeded(layer, name, **changed), "name": layer_name(name)})


def _reseeded(layer: keras.layers.Layer, name: str, **changed: Any) -> dict[str, Any]:
    """Return the configuration of a layer with changes and other seeds, also of a layer that it wraps.

    A wrapped layer has the initial values that it would have alone.
    """
    config = {**layer.get_config(), **changed}
    if "seed" in config:
        config["seed"] = seed_of(name, config["seed"])
    wrapped = {key: getattr(layer, key, None) for key in config}
    for key, inner in wrapped.items():
        if isinstance(inner, keras.layers.Layer):
            config[key] = {**config[key], "config": _reseeded(inner, name)}
    return config


def _joined_name(*parts: str) -> str:
    return "_".join(part for part in parts if part)


def _input(feature: Feature) -> Any:
    spec = feature.encoded_spec
    return keras.Input(spec.shape[1:], dtype=spec.dtype, name=layer_name(feature.name))
