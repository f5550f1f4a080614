from __future__ import annotations

import keras_tuner
import pytest

from tfmtl import tuning


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("loss", "min"),
        ("val_loss", "min"),
        ("val_rating_loss", "min"),
        ("val_rating_root_mean_squared_error", "min"),
        ("val_click_auc", "max"),
        ("accuracy", "max"),
        ("val_seen_recall@100", "max"),
        ("val_seen_hit_rate@10", "max"),
        ("val_seen_top_k_accuracy@5", "max"),
        ("val_seen_ndcg@10", "max"),
        ("val_seen_mrr", "max"),
        ("val_liked_log_loss", "min"),
    ],
)
def test_a_plain_name_says_its_direction(name: str, direction: str) -> None:
    objective = tuning.as_objective(name)
    assert (objective.name, objective.direction) == (name, direction)


@pytest.mark.parametrize("name", ["val_r2_score", "val_rate", "val_recall_at_100", "glossy", "lossy_loss_2"])
def test_a_name_without_a_direction_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"cannot be derived from its name; give Objective\('{name}', 'min'\) or"):
        tuning.as_objective(name)


def test_a_direction_other_than_min_and_max_is_refused() -> None:
    with pytest.raises(ValueError, match=r"objective 'x' must be 'min' or 'max'\. Received: .*'minimise'"):
        tuning.as_objective(tuning.Objective("x", "minimise"))


def test_several_objectives_are_a_list_of_them() -> None:
    first, second = tuning.as_objective(["val_loss", tuning.Objective("x", "max")])
    assert (first.direction, second.direction) == ("min", "max")
    assert isinstance(first, keras_tuner.Objective)
    assert tuning.as_objective(None) is None
