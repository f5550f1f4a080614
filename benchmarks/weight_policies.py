"""Policies of the tasks' weights: learned on the target, carried from other data sets, or prepared by Reptile.

    PYTHONPATH=.:examples python benchmarks/weight_policies.py --census FOLDER --movielens FOLDER --steam FOLDER
        [--episodes 8] [--rounds 4] [--seeds 2] [--actions 8] [--steps 8]

The sources are the data sets that are not the target. An episode trains a model from its first values. The
objective is the mean over the tasks of the share by which their validation losses fell; a policy is judged without
exploration, with the same values of the model for all policies. "Episodes" counts those on the target until a policy
has the objective that the policy from scratch has in the end, by the checkpoints after 0, 2, 4, ... episodes.

Controls: random weights in each action, an actor with random values, and the learned policy with the weights of the
tasks in a wrong order. An untrained actor is the plain sum. Differences are paired with the plain sum of the same model
values; ± is half a 95 % interval over all seeds of learners and of models.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tfmtl  # before TFRS: it selects Keras 2 for the process

# isort: split
import census
import numpy as np
import pandas as pd
import ranking_sets
from paired import interval

from tfmtl import Categorical, Label, Numeric, Schema, allocation, balancing, data, evaluation, layers, models, tasks
from tfmtl.allocation.policies.learning import LEARNERS

Choose = Callable[[np.ndarray], np.ndarray]
"""From the state of a training [K, 5] to an action [K]."""

TRAIN, VALIDATION, TEST = 20_000, 2_000, 10_000
BATCH_SIZE, MODEL_SEEDS = 512, (900, 901)
_NUMBERS = ("age", "num_emp")
_TEXTS = (
    "class_worker", "major_ind_code", "major_occ_code", "race", "hisp_origin", "union_member", "full_or_part_emp",
    "region_prev_res",
)  # fmt: skip


class Problem(NamedTuple):
    """A data set as an environment, and the test rows.

    Attributes:
        environment: the trainings.
        test: a table.
        metrics: metric by task; a smaller RMSE is better.
    """

    environment: allocation.WeightEnvironment
    test: pd.DataFrame
    metrics: Mapping[str, str]


class Outcome(NamedTuple):
    """The end of an episode: the objective, and the test metric by task [K]."""

    objective: float
    metrics: np.ndarray


def problem(table: pd.DataFrame, schema: Schema, kinds: Mapping[str, str], actions: int, steps: int) -> Problem:
    """Cut shuffled rows into training, validation and test rows, and return the problem of an MMoE on them."""
    table = table.iloc[np.random.default_rng(0).permutation(len(table))]
    cuts = [TRAIN, TRAIN + VALIDATION, TRAIN + VALIDATION + TEST]
    train, validation, test = (table.iloc[a:b] for a, b in zip([0, *cuts], cuts, strict=False))
    preprocessor = data.Preprocessor.fit(schema, train)

    def make(seed: int) -> models.MultiTaskModel:
        heads = [
            tasks.BinaryClassification(name, units=(8,))
            if kind == "binary"
            else tasks.Regression.from_statistics(name, preprocessor.statistics)
            for name, kind in kinds.items()
        ]
        trunk = layers.MMoE(num_experts=4, units=(16,), seed=seed)
        network = models.build_network(preprocessor, heads, trunk, embedding_dim=8, seed=seed)
        model = models.MultiTaskModel(network, heads, preprocessor, balancing.AssignedWeights(), seed=seed)
        model.compile(tfmtl.LazyAdam(3e-3))
        return model

    encoded = [data.to_batch(part, preprocessor) for part in (train, validation)]
    environment = allocation.WeightEnvironment(
        make, *encoded, steps_per_action=steps, num_actions=actions, batch_size=BATCH_SIZE
    )
    return Problem(environment, test, {name: "auc" if kind == "binary" else "rmse" for name, kind in kinds.items()})


def problems(options: argparse.Namespace) -> dict[str, Problem]:
    """Return the data sets by name; no two share a label."""
    table = census.load(options.census)[0]
    query = [*map(Numeric, _NUMBERS), *map(Categorical, _TEXTS)]
    found: dict[str, Problem] = {}
    questions = list(census.QUESTIONS)
    for names in (questions[:2], questions[2:6]):
        schema = Schema(query=query, labels=list(map(Label, names)))
        kinds = dict.fromkeys(names, "binary")
        found[f"census, {len(names)} tasks"] = problem(table, schema, kinds, options.actions, options.steps)
    films = ranking_sets.read(options.movielens, 0)
    kinds = {name: str(kind) for name, kind in films.kinds.items()}
    found["MovieLens"] = problem(films.train, films.schema, kinds, options.actions, options.steps)
    reviews = pd.read_parquet(options.steam / "reviews.parquet")
    reviews = reviews.assign(helpful=(reviews["helpful_votes"] > 0).astype("float32"))
    kinds = dict.fromkeys(("recommend", "helpful"), "binary")
    ids = [Categorical(name, dtype="int64") for name in ("user_id", "item_id")]
    schema = Schema(query=ids[:1], candidate=ids[1:], context=[Numeric("text_sentiment")],
                    labels=list(map(Label, kinds)))  # fmt: skip
    found["Steam"] = problem(reviews, schema, kinds, options.actions, options.steps)
    return found


def objective_of(target: Problem, choose: Choose, seed: int) -> float:
    """Train a model under a policy without exploration, and return its objective."""
    state, _ = target.environment.reset(seed=seed)
    ended, objective = False, 0.0
    while not ended:
        state, _, ended, _, details = target.environment.step(choose(state))
        objective = details["objective"]
    return objective


def judged(target: Problem, choose: Choose) -> list[Outcome]:
    """Train models under a policy without exploration, and measure each."""
    found = []
    for seed in MODEL_SEEDS:
        objective = objective_of(target, choose, seed)
        report = evaluation.evaluate(target.environment.model, target.test, tasks=list(target.metrics))
        found.append(Outcome(objective, np.array([float(report[pair]) for pair in target.metrics.items()])))
    return found


def acting(policy: allocation.WeightPolicy) -> Choose:
    """Return the actions of a policy without exploration."""
    return lambda state: policy.actions(state.astype(np.float32)).numpy()


class Curve(NamedTuple):
    """The learning of a policy on a target.

    Attributes:
        policy: the policy in the end.
        greedy: by number of episodes, the objective without exploration, for the first of the seeds of models.
        explored: the objectives of the episodes.
    """

    policy: allocation.WeightPolicy
    greedy: dict[int, float]
    explored: list[float]

    def episodes_to(self, objective: float) -> str:
        """Return the number of episodes until the greedy policy has an objective."""
        return next((str(number) for number, found in self.greedy.items() if found >= objective), "-")


def learned(target: Problem, start: allocation.WeightPolicy, learner: str, episodes: int, seed: int) -> Curve:
    """Learn from a start on the target, with checkpoints."""
    policy = start.copy()
    learns, explored, greedy = LEARNERS[learner](policy, seed), [], {}
    for number in range(episodes + 1):
        if number in (0, episodes) or (number > 1 and number & (number - 1) == 0):
            greedy[number] = objective_of(target, acting(policy), MODEL_SEEDS[0])
        if number < episodes:
            explored.append(learns.run_episode(target.environment, seed + number))
    return Curve(policy, greedy, explored)


def controls(scratch: allocation.WeightPolicy, seed: int) -> dict[str, Choose]:
    """Return random weights, a random actor, and a learned policy with the tasks in a wrong order."""
    rng, actor = np.random.default_rng(seed), scratch.copy()
    actor.network.set_weights([rng.normal(0, 0.5, value.shape) for value in actor.network.get_weights()])
    return {
        "random weights": lambda state: np.clip(rng.normal(size=len(state)), -2.0, 2.0),
        "random actor": acting(actor),
        "TD3 from scratch, tasks in a wrong order": lambda state: np.roll(acting(scratch)(state), 1),
    }


def compare(name: str, found: Mapping[str, Problem], options: argparse.Namespace) -> None:
    """Print the table of a target."""
    target, sources = found[name], [other.environment for key, other in found.items() if key != name]
    results: dict[str, list[Outcome]] = {}
    counts: dict[str, list[str]] = {}
    plain = judged(target, lambda state: np.zeros(len(state)))
    for learner_seed in range(options.seeds):
        seed, fresh = 100 * learner_seed, allocation.WeightPolicy(seed=learner_seed)
        episodes = options.rounds * 3
        carried = allocation.train_weight_policy(sources, episodes, seed=seed).policy
        meta = allocation.meta_train_weight_policy(sources, options.rounds, episodes=3, seed=seed).policy
        curves = {
            "TD3 from scratch": learned(target, fresh, "td3", options.episodes, seed),
            "REINFORCE from scratch": learned(target, fresh, "reinforce", options.episodes, seed),
            "carried, fine-tuned": learned(target, carried, "td3", options.episodes, seed),
            "meta-trained, fine-tuned": learned(target, meta, "td3", options.episodes, seed),
        }
        chosen = {key: acting(curve.policy) for key, curve in curves.items()}
        chosen |= {"carried, frozen": acting(carried), "meta-trained, frozen": acting(meta)}
        chosen |= controls(curves["TD3 from scratch"].policy, seed)
        for key, choose in chosen.items():
            results.setdefault(key, []).extend(judged(target, choose))
        limit = curves["TD3 from scratch"].greedy[options.episodes]
        for key, curve in curves.items():
            counts.setdefault(key, []).append(curve.episodes_to(limit))
            steps = ", ".join(f"{number}: {value:.4f}" for number, value in curve.greedy.items())
            print(f"{name}, learner {learner_seed}, {key}: {steps}; explored {np.mean(curve.explored):.4f}", flush=True)
        show(f"{name}, {learner_seed + 1} learners", target, plain, results, counts)


def show(
    name: str, target: Problem, plain: list[Outcome], results: Mapping[str, list[Outcome]], counts: Mapping[str, Any]
) -> None:
    """Print differences from the plain sum."""
    print(f"\n## {name}\n")
    heads = " | ".join(f"{task} {metric}" for task, metric in target.metrics.items())
    print(f"| policy | objective | {heads} | episodes |")
    print("|---" * (3 + len(target.metrics)) + "|")
    base = np.array([[one.objective, *one.metrics] for one in plain])
    cells = " | ".join(f"{value:.4f}" for value in base.mean(axis=0))
    print(f"| plain sum | {cells} | |")
    for key, outcomes in results.items():
        values = np.array([[one.objective, *one.metrics] for one in outcomes]).reshape(-1, *base.shape) - base
        cells = " | ".join(interval(column, "+.4f") for column in values.reshape(-1, base.shape[1]).T)
        print(f"| {key} | {cells} | {', '.join(counts.get(key, []))} |", flush=True)
    print()


def main() -> None:
    """Parse the arguments and print a table for each target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--census", type=pathlib.Path, required=True)
    parser.add_argument("--movielens", type=pathlib.Path, required=True)
    parser.add_argument("--steam", type=pathlib.Path, required=True)
    parser.add_argument("--targets", nargs="*", default=["MovieLens"], help="names of data sets")
    parser.add_argument("--episodes", type=int, default=8, help="episodes on the target")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of 3 episodes on the sources")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of learners")
    parser.add_argument("--actions", type=int, default=8, help="actions of an episode")
    parser.add_argument("--steps", type=int, default=8, help="steps of an action")
    options = parser.parse_args()
    start = time.process_time()
    found = problems(options)
    for name in options.targets:
        compare(name, found, options)
    print(f"{time.process_time() - start:.0f} s of CPU")


if __name__ == "__main__":
    main()
