"""The orders in which a process may have met Keras before `import tfmtl`, each in a process of its own."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
GIVES_KERAS_2 = """
import tensorflow as tf
from tensorflow.keras import layers
assert layers.Dense.__module__.startswith("tf_keras."), layers.Dense.__module__
assert tf.keras.layers.Dense is layers.Dense
import tensorflow_recommenders
"""


def run(code: str, path: pathlib.Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh process that has no Keras setting but `variables`."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    paths = [str(ROOT), *([str(path)] if path else [])]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "before",
    ["import tensorflow", "import keras, keras_tuner"],
    ids=["tensorflow first, untouched", "Keras 3 and keras-tuner first"],
)
def test_early_enough_gives_keras_2(before: str) -> None:
    result = run(f"{before}\nimport tfmtl\n{GIVES_KERAS_2}", TF_USE_LEGACY_KERAS="")  # empty counts as not set
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "before",
    ["import tensorflow as tf; tf.keras.layers", "from tensorflow.keras import layers"],
    ids=["tf.keras touched", "tensorflow.keras imported"],
)
def test_too_late_is_one_sentence_with_the_cure(before: str) -> None:
    result = run(f"{before}\nimport tfmtl")
    assert result.returncode == 1
    assert last_line(result) == (
        "ImportError: tfmtl needs Keras 2, but `tf.keras` was used before `import tfmtl` and fixed Keras 3 for this "
        "process. Set TF_USE_LEGACY_KERAS=1 in the environment, or import tfmtl before anything that uses `tf.keras` "
        "(and before `from tensorflow.keras import ...`)."
    )


@pytest.mark.parametrize("value", ["0", "false", "TRUE", "yes"])  # TensorFlow counts only 1, true and True
def test_variable_that_asks_for_keras_3_is_refused(value: str) -> None:
    result = run("import tfmtl", TF_USE_LEGACY_KERAS=value)
    assert result.returncode == 1
    assert f"TF_USE_LEGACY_KERAS is {value!r}, which selects Keras 3." in last_line(result)


def test_variable_set_gives_keras_2_and_a_broken_scann_does_not_break_tfrs(tmp_path: pathlib.Path) -> None:
    (tmp_path / "scann").mkdir()
    # What ScaNN 1.4.2 raises on TensorFlow 2.21; TFRS only expects an ImportError.
    source = "import tensorflow as tf\nraise tf.errors.NotFoundError(None, None, '_scann_ops.so: undefined symbol')\n"
    (tmp_path / "scann" / "__init__.py").write_text(source)
    code = f"import tfmtl\n{GIVES_KERAS_2}\nprint(tensorflow_recommenders.layers.factorized_top_k._HAVE_SCANN)"
    result = run(code, path=tmp_path, TF_USE_LEGACY_KERAS="true")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "False"


def test_variable_set_gives_keras_2_to_who_imports_tfrs_first() -> None:
    result = run(f"import tensorflow_recommenders\nimport tfmtl\n{GIVES_KERAS_2}", TF_USE_LEGACY_KERAS="1")
    assert result.returncode == 0, result.stderr


def test_import_loads_no_room_and_none_of_the_heavy_libraries() -> None:
    code = """
import sys, tfmtl
heavy = ("keras_tuner", "matplotlib", "tensorflow_model_optimization", "tensorflow_recommenders")
print([name for name in heavy if name in sys.modules], sorted(name for name in sys.modules if "tfmtl." in name))
"""
    result = run(code)
    assert result.stdout.strip() == "[] ['tfmtl._keras']", result.stderr


def test_two_classes_of_one_name_are_refused() -> None:
    """Keras would replace the first without a word, and a saved model would load as the second."""
    from tfmtl._keras import register
    from tfmtl.balancing import DBMTL

    other = type("DBMTL", (), {"__module__": "elsewhere"})
    sentence = "tfmtl.balancing.db_mtl has a DBMTL already; name that of elsewhere otherwise."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        register(other)
    assert register(DBMTL) is DBMTL
