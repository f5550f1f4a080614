"""The order of labels that presuppose each other: exposure, click, cart, purchase."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from tfmtl._checks import require, require_known


@dataclasses.dataclass(frozen=True)
class LabelGraph:
    """Labels that presuppose others: a purchase comes after a click, a spend after a conversion.

    Attributes:
        parents: by label its direct parent or parents. A label that is only named as a parent has none.

    Raises:
        ValueError: if a label comes after itself, or names a parent twice.

    Example:
        >>> graph = LabelGraph({"spend": "conversion", "conversion": ("visit", "consent")})
        >>> graph.order
        ('visit', 'consent', 'conversion', 'spend')
        >>> graph.parents_of("spend"), graph.ancestors_of("spend")
        (('conversion',), ('visit', 'consent', 'conversion'))
    """

    parents: Mapping[str, str | Sequence[str]]

    def __post_init__(self) -> None:
        parents = {label: _names(label, given) for label, given in self.parents.items()}
        object.__setattr__(self, "parents", parents)
        _ = self.order  # finds cycles

    @classmethod
    def chain(cls, *labels: str) -> LabelGraph:
        """Return the graph in which each label comes after the one before it.

        Example:
            >>> LabelGraph.chain("visit", "conversion", "spend").parents
            {'conversion': ('visit',), 'spend': ('conversion',)}
        """
        require(len(labels) > 1, "A chain needs two labels or more.", labels=labels)
        require(len(set(labels)) == len(labels), "The labels of a chain must be distinct.", labels=labels)
        return cls(dict(zip(labels[1:], labels, strict=False)))

    @property
    def order(self) -> tuple[str, ...]:
        """All labels, every one after its parents."""
        return tuple(dict.fromkeys(label for last in self.parents for label in self._up_to(last, ())))

    def parents_of(self, label: str) -> tuple[str, ...]:
        """Return the direct parents of a label; empty for a root."""
        require_known([label], self.order, "label", "the label graph")
        return tuple(self.parents.get(label, ()))

    def ancestors_of(self, label: str) -> tuple[str, ...]:
        """Return all labels that a label presupposes, in order."""
        require_known([label], self.order, "label", "the label graph")
        return tuple(dict.fromkeys(self._up_to(label, ())))[:-1]

    def _up_to(self, label: str, after: tuple[str, ...]) -> Iterator[str]:
        """Yield the ancestors of a label, then itself; `after` is the path to it."""
        if label in after:
            cycle = " -> ".join([*after[after.index(label) :], label][::-1])
            raise ValueError(f"No label can come after itself: {cycle}.")
        for parent in self.parents.get(label, ()):
            yield from self._up_to(parent, (*after, label))
        yield label


def _names(label: str, given: str | Sequence[str]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    valid = all(isinstance(name, str) and name for name in (label, *names)) and len(set(names)) == len(names)
    require(valid, f"The parents of label {label!r} must be distinct, non-empty names.", parents=given)
    return names
