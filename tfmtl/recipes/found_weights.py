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
        min_users: the `min_users` of `slices`, chosen if several were given; None without slices.
        slice_gain: gain of the weights by slice over those of all queries, with the ends of its interval, on users
            outside of the searches; None without slices.
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
    min_users: int | None = None
    slice_gain: tuple[float, float, float] | None = None

    @property
    def by_slice(self) -> SliceWeights:
        """The weights by slice, for `export(fusion_weights=...)`.

        Raises:
            ValueError: if no slice has weights of its own.
        """
        require(self.by is not None, "There are no weights by slice without `slices`; use `weights`.", slices=self.by)
        rule = "No slice has `min_users` users, or the folds chose none; use `weights`, or a lower `min_users`."
        require(bool(self.slices), rule, by=self.by, min_users=self.min_users)
        return SliceWeights(str(self.by), self.slices, self.weights)

    @property
    def gain(self) -> tuple[float, float, float]:
        """The gain of the found weights over the default ones, with the ends of its interval."""
        return gain_of(self.comparison.loc[(FOUND, self.metric)])

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

    @property
    def slice_verdict(self) -> str:
        """One sentence on whether the weights by slice are better than those of all queries; empty without slices."""
        if self.slice_gain is None:
            return ""
        value, low, high = self.slice_gain
        found = "better" if low > 0 else "worse" if high < 0 else "not shown to be better"
        gain = f"{self.metric} changes by {value:+.4f} ({low:+.4f} to {high:+.4f})"
        return f"The weights by slice are {found} than those of all queries: {gain} from these."

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
            gain = "" if name == DEFAULT else "{:+.4f} ({:+.4f} to {:+.4f})".format(*gain_of(row))
            lines.append(f"{name:<{wide}}  {value:<26}  {gain}".rstrip())
        lines.append(f"{'best order':<{wide}}  {self.ceiling:.4f}")
        verdicts = f"{self.verdict} {self.slice_verdict}".rstrip()
        return "\n".join([*lines, "", f"{self.queries:,} queries of {self.users:,} users. {verdicts}"])


def gain_of(row: Any) -> tuple[float, float, float]:
    """Return the difference in a row of `bootstrap_comparison`, with the ends of its interval."""
    return float(row["difference"]), float(row["difference_low"]), float(row["difference_high"])
