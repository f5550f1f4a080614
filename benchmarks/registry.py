"""Every benchmark: its question, its script and its arguments."""

from __future__ import annotations

from entry import DATA as DATA
from entry import Entry as Entry
from entry import places as places
from environments import ENVIRONMENTS as ENVIRONMENTS

_PEERS = ("--peers", "deepctr={deepctr}", "rechub={torch-rechub}")
_SEED = ("--seeds", "1")

ENTRIES = (
    Entry(
        "training_speed",
        "How fast is joint training of retrieval and rating beside the multi-task tutorials of TFRS and Keras RS?",
        "training_speed.py", ("--keras-rs", "{keras-rs}"), ("--data", "{ml_100k}"), ("--rounds", "1"),
    ),
    Entry(
        "training_speed_million",
        "How fast is joint training on MovieLens-1M beside the form of TFRS's tutorial?",
        "training_speed.py",
        ("--data", "{ml_1m}", "--rounds", "2"), (), ("--rounds", "1"),
    ),
    Entry(
        "architectures_rate",
        "How many rows per second does an MMoE train, in turn with those of DeepCTR and torch-rechub of equal size?",
        "architectures.py", ("--census", "{census_income}", "--rate", *_PEERS), (), ("--groups", "1"),
    ),
    Entry(
        "architectures_peers",
        "How good is an MMoE trained as the peers train theirs, beside DeepCTR and torch-rechub, on census income?",
        "architectures.py",
        ("--census", "{census_income}", "--trunks", "MMoE", "--constant", *_PEERS), (), ("--groups", "1", *_SEED),
    ),
    Entry(
        "architectures",
        "Which trunk is best on census income, by test AUC of each task?",
        "architectures.py", ("--census", "{census_income}"), (), ("--groups", "1", "--trunks", "MMoE", *_SEED),
    ),
    Entry(
        "robustness",
        "Does adversarial training on census income keep the AUC under attack, need few labels, reach a domain?",
        "robustness.py", ("--census", "{census_income}"), (),
        ("--rows", "4000", "--epochs", "1", "--rounds", "2", *_SEED),
    ),
    Entry(
        "experts",
        "How much faster is one batched product for all experts than a dense layer per expert?",
        "experts.py",
    ),
    Entry(
        "label_chains",
        "Do ESMM, ESCM2 and AITM predict conversions after visits better than the naive model?",
        "label_chains.py", ("--hillstrom", "{hillstrom}/hillstrom.parquet"), (), _SEED,
    ),
    Entry(
        "attention",
        "How much do attention over a user's history and fused views of a movie improve a model of MovieLens-100K?",
        "attention.py", (), ("--data", "{ml_100k}"), ("--variants", "mean", *_SEED),
    ),
    Entry(
        "grocery_attention",
        "How much does attention over a household's purchases improve a model of a year of a grocery store?",
        "grocery_attention.py", (), (), ("--variants", "mean", "--rows", "5000", *_SEED),
    ),
    Entry(
        "balancing_census",
        "Which balancer is better than tuned fixed weights on 2, 4 and 8 tasks of census income?",
        "balancing.py", ("--census", "{census_income}"), (),
        ("--tasks", "2", "--epochs", "1", "--rows", "5000", "--trials", "1", "--only", "PCGrad", *_SEED),
    ),
    Entry(
        "balancing_movielens",
        "Which balancer is better than tuned fixed weights on retrieval and rating of MovieLens-100K?",
        "balancing.py", ("--movielens", "{ml_100k}"), (),
        ("--epochs", "1", "--trials", "1", "--only", "PCGrad", *_SEED),
    ),
    Entry(
        "balancing_learned",
        "Are bandits and weights learned on held-out rows better than the plain sum and random weights on 8 tasks?",
        "balancing.py",
        ("--census", "{census_income}", "--tasks", "8", "--rows", "50000", "--seeds", "2", "--plain", "--only", "RLW",
         "EqualWeights", "Exp3S", "ThompsonSampling", "AutoLambda", "MultiDDS"), (),
        ("--epochs", "1", "--rows", "5000", "--only", "AutoLambda", *_SEED),
    ),
    Entry(
        "weight_policies",
        "Does a policy of loss weights from other data sets, or a meta-trained one, save episodes on a new data set?",
        "weight_policies.py",
        ("--census", "{census_income}", "--movielens", "{ml_100k}", "--steam", "{steam_reviews}"), (),
        ("--episodes", "2", "--rounds", "1", "--actions", "2", "--steps", "2", *_SEED),
    ),
    Entry(
        "balancing_speed_learned",
        "What does a learned policy of loss weights add to a step, and learning one to an episode?",
        "balancing_speed.py", ("--learned", "{census_income}", "--rounds", "5"), (),
        ("--rounds", "1", "--only", "AutoLambda"),
    ),
    Entry(
        "balancing_speed_census",
        "What does a balancer that reads gradients add to a step of an MMoE with 2, 4 and 8 tasks?",
        "balancing_speed.py", ("--census", "{census_income}", "--rounds", "15"), (),
        ("--rounds", "2", "--only", "PCGrad"),
    ),
    Entry(
        "balancing_speed_joint",
        "What does a balancer add to a step of joint retrieval and rating, and does the vocabulary cost anything?",
        "balancing_speed.py", ("--joint", "100000", "--rows", "10000", "1000000"), (),
        ("--rows", "10000", "20000", "--rounds", "2", "--only", "PCGrad"),
    ),
    Entry(
        "mutations",
        "Do the tests of a package notice a changed constant, operator or sign?",
        "mutations.py", (), (), ("--sample", "2", "--packages", "_checks.py"),
    ),
    Entry(
        "optimizers_movielens",
        "Which optimizer of embedding tables predicts the ratings of MovieLens-100K best, against Keras' Adam?",
        "optimizers.py", ("--movielens", "{ml_100k}"), (), ("--only", "LazyAdam", *_SEED),
    ),
    Entry(
        "optimizers_long_tail",
        "Which optimiser of embedding tables predicts random ratings of long-tail users and items best?",
        "optimizers.py", (), (), ("--only", "LazyAdam", *_SEED),
    ),
    Entry(
        "optimizer_speed",
        "What does a step of an embedding optimizer cost by rows of the table, with uniform ids?",
        "optimizer_speed.py", (), (), ("--rows", "10000", "--rounds", "2", "--only", "LazyAdam"),
    ),
    Entry(
        "optimizer_speed_small",
        "What does a step with a small batch cost, compared with Keras' Adam?",
        "optimizer_speed.py", ("--batch-size", "256", "--only", "LazyAdam"), (), ("--rows", "10000", "--rounds", "2"),
    ),
    Entry(
        "optimizer_speed_tail",
        "What does a step of an embedding optimizer cost by rows of the table, with a long tail of ids?",
        "optimizer_speed.py", ("--tail",), (), ("--rows", "10000", "--rounds", "2", "--only", "LazyAdam"),
    ),
    Entry(
        "scaling",
        "How does cost grow with rows, vocabulary, tasks, experts and candidates?",
        "scaling.py", ("--picture", "docs/scaling.png"), (), ("--quick",),
    ),
    Entry(
        "streaming",
        "How fast is training from files ten times as large as the memory allowed, against rows in memory?",
        "streaming.py", (), (), ("--times", "2", "--segments", "2"),
    ),
    Entry(
        "streaming_wide",
        "How fast is training from such files if the model is as wide as the rating head of TFRS's tutorial?",
        "streaming.py", ("--units", "256", "128"), (), ("--times", "2", "--segments", "2"),
    ),
    Entry(
        "distribution",
        "Do two workers compute the same as one process, and what do their messages cost?",
        "distribution.py", (), (), ("--rows", "4000", "--batch", "1000", "--epochs", "1"),
    ),
    Entry(
        "evaluation",
        "How much CPU does a full-corpus evaluation of retrieval take, against the stock TFRS metric?",
        "evaluation.py", (), ("--data", "{ml_100k}"), ("--rounds", "1"),
    ),
    Entry(
        "evaluation_large",
        "How much CPU does the same evaluation take with 5,000 rows and 100,000 candidates?",
        "evaluation.py", ("--candidates", "100000", "--rounds", "3"), (), ("--candidates", "2000", "--rounds", "1"),
    ),
    Entry(
        "evaluation_scale",
        "In how much time and memory are 100,000 queries ranked among 1,000,000 candidates?",
        "evaluation_scale.py", (), (), ("--queries", "1000", "--candidates", "10000", "--block-mb", "8"),
    ),
    Entry(
        "compression_groceries",
        "How small and fast does a student of groceries become, and how much of its teacher's quality does it keep?",
        "compression.py",
    ),
    Entry(
        "compression_movielens",
        "How small and fast does a student of MovieLens-1M become, and how much of its teacher's quality does it keep?",
        "compression.py", ("--movielens", "{ml_1m}"), (), ("--movielens", "{ml_100k}"),
    ),
    Entry(
        "compression_wide",
        "How much of the quality of a teacher with several times the dense weights does a narrow student keep?",
        "compression.py", ("--movielens", "{ml_1m}", "--wide"), (), ("--movielens", "{ml_100k}"),
    ),
    Entry(
        "sequential",
        "How well does a joint model with attention over histories predict the next movie of MovieLens-1M?",
        "sequential.py", ("--data", "{ml_1m}", "--implicit", "{implicit}"), (), ("--epochs", "1", *_SEED),
    ),
    Entry(
        "interests",
        "Do four vectors per query retrieve better than one, with equal parameters and equal time of a search?",
        "interests.py", ("--movielens", "{ml_1m}", "--users", "200"), (), ("--epochs", "1", *_SEED),
    ),
    Entry(
        "task_groups",
        "Which tasks of census income share a network, by which affinity, and does it raise the AUC?",
        "task_groups.py", ("--census", "{census_income}", "--rows", "60000", "--epochs", "5"), (),
        ("--rows", "3000", "--epochs", "1", *_SEED),
    ),
    Entry(
        "group_updates",
        "Do groups of tasks that step in turn have a higher AUC than the plain sum, at equal updates or equal time?",
        "group_updates.py", ("--census", "{census_income}", "--rows", "60000"), (),
        ("--rows", "3000", "--epochs", "1", "--every", "1", *_SEED),
    ),
    Entry(
        "schedules",
        "How much of the margin over trivial predictions does a schedule keep in half of the time of all tasks?",
        "schedules.py", ("--simulated", "120", "--movielens", "{ml_100k}", "--epochs", "15"), (),
        ("--simulated", "2", "--epochs", "2", *_SEED),
    ),
    Entry(
        "schedules_grocery",
        "How much of the margin of six tasks of a grocery store does a schedule keep in half of the time of all tasks?",
        "schedules.py", ("--grocery", "--rows", "20000", "--epochs", "12"), (), ("--epochs", "2", *_SEED),
    ),
    Entry(
        "session_critics",
        "Do weights of rows by session critics (RMTL) raise AUC, beside shuffled weights and focal loss?",
        "session_critics.py", ("{ml_100k}", "{tmall}", "--rows", "50000"), (),
        ("--rows", "5000", "--epochs", "1", *_SEED),
    ),
    Entry(
        "recipe",
        "Does the retrieval of `recipes.join_ease` rank better than the network and than simple baselines?",
        "recipe.py",
        ("{ml_100k}", "{filmtrust}", "{instacart_sample}", "{tmall_brands}", "{steam_reviews}", "{ciao}"),
        quick=("--seeds", "1", "--epochs", "1"),
    ),
    Entry(
        "next_candidate",
        "Does the recipe find the next candidate better with the history of the request than simple baselines?",
        "next_candidate.py",
        ("{ml_100k}", "{steam_reviews}", "{tmall_brands}", "{instacart_sample}", "{ciao}", "{tmall}"),
        quick=("--seeds", "1", "--users", "200", "--epochs", "1"),
    ),
    Entry(
        "fusion_weights",
        "Do weights of `recipes.fusion_weights` serve better lists of a main event than the default weights?",
        "fusion_weights.py",
        ("{ml_100k}", "{tmall_brands}"),
        quick=("--seeds", "1", "--rows", "20000", "--epochs", "1"),
    ),
    Entry(
        "contextual_weights",
        "Do weights of served lists by slice or by the query gain over one set of weights?",
        "contextual_weights.py",
        ("{ml_100k}", "{open_bandit_small}"),
        quick=("--seeds", "1", "--rows", "15000", "--epochs", "1"),
    ),
    Entry(
        "calibration",
        "Are event probabilities calibrated on test rows after `recipes.calibrate`, with the same AUC?",
        "calibration.py", ("{census_income}", "{steam_reviews}", "{ml_100k}", "{open_bandit_small}"),
        quick=("--epochs", "1"),
    ),
    Entry(
        "off_policy",
        "How close are off-policy estimates of logged clicks to a known mean, and what do they find for a model?",
        "off_policy.py", ("{open_bandit_small}",),
    ),
    Entry(
        "transfer",
        "Which tasks lose or gain by being trained with others, against the same network trained on each task alone?",
        "transfer.py",
        (
            "{ml_100k}", "{steam_reviews}", "{tmall_brands}", "{tmall}", "{instacart_sample}", "{ciao}", "{hillstrom}",
            "{census_income}", "{open_bandit_small}",
        ),
        quick=("--seeds", "1", "--epochs", "1", "--rows", "4000"),
    ),
    Entry(
        "recipe_cost",
        "How much time does `recipes.fit` add to the training of the same model with its settings given?",
        "recipe_cost.py", ("{ml_100k}", "{steam_reviews}", "{census_income}", "{ml_1m}"), (),
        ("--rows", "4000", "--epochs", "1", "--repeats", "1"),
    ),
    Entry(
        "buying_again",
        "Does the model of `recipes.fit` rank better than simple baselines where users buy again?",
        "buying_again.py", ("{instacart_sample}", "{tmall_brands}", "grocery"), (), ("--epochs", "1"),
    ),
    Entry(
        "ranking",
        "Are ranking tasks by the defaults of `recipes.fit` level with gradient boosting, by eleven data sets?",
        "ranking.py",
        ("{census_income}", "{hillstrom}", "{open_bandit_small}", "{ml_100k}", "{ml_1m}", "{ciao}", "{filmtrust}",
         "{steam_reviews}", "{tmall_brands}", "{tmall}", "{instacart_sample}"),
        quick=("--epochs", "1", "--samples", "10"),
    ),
    Entry(
        "retrieval_negatives",
        "What do explicit, queued, popular and mined negatives and several positives of a query bring retrieval?",
        "retrieval_negatives.py", ("--movielens", "{ml_100k}", "--steam", "{steam_reviews}"),
        quick=("--seeds", "1", "--rounds", "1", "--variants", "in-batch"),
    ),
    Entry(
        "logq",
        "Which logits of the in-batch softmax should the logQ correction change, by the metrics of three data sets?",
        "logq.py", (), ("--movielens", "{ml_100k}", "--tmall", "{tmall}"), ("--sets", "movielens", *_SEED),
    ),
    Entry(
        "regularization",
        "What does each kind of noise and augmentation gain on MovieLens-100K, alone?",
        "regularization.py", (), ("--data", "{ml_100k}"), ("--quick",),
    ),
    Entry(
        "missing_context",
        "How good are probabilities without a context, by the rate at which training leaves the context out?",
        "missing_context.py", ("--data", "{instacart_sample}"), (), ("--quick",),
    ),
    Entry(
        "head_losses",
        "What do quantile, ordinal, Poisson, Tweedie and lognormal losses gain over squared loss, and cost in a step?",
        "head_losses.py",
        ("--stars", "{ml_100k}", "--clicks", "{tmall_brands}", "--spend", "{hillstrom}"), (), ("--quick",),
    ),
    Entry(
        "group_losses",
        "What do pairwise and listwise losses gain in the order within users, and cost in a step?",
        "group_losses.py", ("{ml_100k}", "{tmall_brands}"), (), ("--seeds", "1", "--epochs", "1"),
    ),
    Entry(
        "lifecycle_ensembles",
        "What do averaged, weighted, stacked and snapshot ensembles gain on MovieLens-100K, and a student of them?",
        "lifecycle_ensembles.py", (), ("--data", "{ml_100k}"), ("--quick",),
    ),
    Entry(
        "lifecycle_transfer",
        "What does the coupon task gain from a warm start from a model of purchases, on groceries?",
        "lifecycle_transfer.py", (), (), ("--quick",),
    ),
    Entry(
        "lifecycle_cold",
        "What does meta-learning gain for households that are new to the model, on groceries?",
        "lifecycle_cold.py", (), (), ("--quick",),
    ),
    Entry(
        "cold_candidates",
        "Does dropout of the id help to retrieve films without a training row by their content?",
        "cold_candidates.py", ("{ml_1m}",), (), ("--epochs", "1", "--rates", "0.3"),
    ),
    Entry(
        "lifecycle_online",
        "How do weekly increments compare in cost and quality with weekly retraining, on groceries?",
        "lifecycle_online.py", (), (), ("--quick",),
    ),
    Entry(
        "rank_latency",
        "How long does `rank` of raw features take in TensorFlow Serving's loader, beside torch-rechub's ONNX export?",
        "rank_latency.py", ("--census", "{census_income}", "--rechub", "{torch-rechub}"),
    ),
    Entry(
        "explain_latency",
        "How long does `explain` with 32 steps take beside `rank`, in TensorFlow Serving's loader, on census income?",
        "rank_latency.py", ("--census", "{census_income}", "--explain"),
    ),
    Entry(
        "insight",
        "Do attributions find planted features, are they complete, what do they cost, and do they choose features?",
        "insight.py", (), ("--census", "{census_income}"), ("--tables", "1", *_SEED, "--rows", "2000"),
    ),
    Entry(
        "serving",
        "How fast are exact and approximate search of 68,509 products and noise, beside TFRS' BruteForce?",
        "serving.py", (), (), ("--rounds", "1"),
    ),
    Entry(
        "serving_million",
        "How fast are exact and approximate search of 1,000,000 candidates, beside TFRS' BruteForce?",
        "serving.py", ("--candidates", "1000000"), (), ("--candidates", "70000", "--rounds", "1"),
    ),
    Entry(
        "serving_robustness",
        "Do servers and exports survive malformed requests, swaps under load, kills, parallel writers, damaged files?",
        "serving_robustness.py", (), (),
        ("--requests", "2000", "--fuzzed", "500", "--clients", "4", "--swaps", "2", "--kills", "2", "--versions", "5",
         "--damages", "30"),
    ),
    Entry(
        "hostile_folders",
        "Does a hostile model folder or card run code, write a file or end in a traceback?",
        "hostile_folders.py", (), (), ("--folders", "20", "--cards", "20"),
    ),
    Entry(
        "serving_rows",
        "Does an export answer like the model in memory on random rows with missing, unknown and extreme values?",
        "serving_rows.py", (), (), ("--rows", "500"),
    ),
)  # fmt: skip
"""In the order of the document."""
