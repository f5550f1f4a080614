"""FoundWeights: the weights that `fusion_weights` found, and the lists that they give."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tfmtl._checks import require
from tfmtl.serving.slice_weights import SliceWeights

if TYPE_CHECKING:
    import pandas as pd

DEFAULT, ALONE, FOUND, SLICED = "default weights", "retrieval alone", "found weights", "found by slice"


@dataclasses.dataclass(frozen=True)
class FoundWeights:
    """The result of `fusion_weights`; `print` shows it as a table.

    Attributes:
        weights: found weights by task name, for `export(fusion_weights=...)`.
        defaults: weights by task name that `export` has without an argument.
        by: name of the slice feature, or None.
        slices: weights by value of the slice feature and task name; other values have `weights`.
        comparison: table of `bootstrap_comparison` on users outside of the search.
        metric: name of the metric, such as `"ndcg@10"`.
        ceiling: mean metric of the best order of each shortlist, which no weights exceed.
        queries, users: numbers of queries and users with a positive.
    """

    weights: dict[str, float]
    defaults: dict[str, float]
    by: str | None
    slices: dict[Any, dict[str, float]]
    comparison: pd.DataFrame
    metric: str
    ceiling: float
    queries: int
    users: int

    @property
    def by_slice(self) -> SliceWeights:
        """The weights by slice, for `export(fusion_weights=...)`.

        Raises:
            ValueError: if no slice has weights of its own.
        """
        require(self.by is not None, "There are no weights by slice without `slices`; use `weights`.", slices=self.by)
        require(bool(self.slices), "No slice has `min_users` users; use `weights`, or a lower `min_users`.", by=self.by)
        return SliceWeights(str(self.by), self.slices, self.weights)

    @property
    def gain(self) -> tuple[float, float, float]:
        """The gain of the found weights over the default ones, with the ends of its interval."""
        return _gain(self.comparison.loc[(FOUND, self.metric)])

    @property
    def verdict(self) -> str:
        """One sentence on whether the found weights are better than the default ones."""
        value, low, high = self.gain
        gain = f"{self.metric} changes by {value:+.4f} ({low:+.4f} to {high:+.4f}) on users outside of the search"
        if low > 0:
            return f"The found weights are better: {gain}."
        if high < 0:
            return f"The found weights are worse, keep the default ones: {gain}."
        return f"The found weights may be no better than the default ones: {gain}, an interval with 0."

    def __str__(self) -> str:
        sets = {DEFAULT: self.defaults, FOUND: self.weights} | {f"of {v!r}": own for v, own in self.slices.items()}
        wide = max(map(len, (*sets, SLICED)))
        lines = [f"{'':<{wide}}" + "".join(f"  {task:>8}" for task in self.defaults)]
        for name, own in sets.items():
            cells = (f"  {own[task]:>{max(8, len(task))}.4f}" for task in self.defaults)
            lines.append(f"{name:<{wide}}" + "".join(cells))
        lines += ["", f"{'':<{wide}}  {self.metric:<26}  difference from the default weights"]
        for (name, _), row in self.comparison.iterrows():
            value = f"{row['value']:.4f} ({row['low']:.4f} to {row['high']:.4f})"
            gain = "" if name == DEFAULT else "{:+.4f} ({:+.4f} to {:+.4f})".format(*_gain(row))
            lines.append(f"{name:<{wide}}  {value:<26}  {gain}".rstrip())
        lines.append(f"{'best order':<{wide}}  {self.ceiling:.4f}")
        return "\n".join([*lines, "", f"{self.queries:,} queries of {self.users:,} users. {self.verdict}"])


def _gain(row: Any) -> tuple[float, float, float]:
    return float(row["difference"]), float(row["difference_low"]), float(row["difference_high"])
