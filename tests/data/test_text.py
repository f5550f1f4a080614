from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import unicodedata
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tfmtl
from tfmtl._keras import tf
from tfmtl.data import (
    Categorical,
    Label,
    Preprocessor,
    Schema,
    Text,
    encode,
    open_files,
    text,
    to_columns,
    write_tfrecords,
)
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import BinaryClassification


def words(value: str, unspaced: Any = "bigrams") -> list[str]:
    return [word.decode() for word in text.words(tf.constant([value]), unspaced).to_list()[0]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Toy Story (1995)", ["toy", "story", "1995"]),
        ("हिन्दी किताब", ["हिन्दी", "किताब"]),  # Devanagari: marks stay
        ("Tiếng Việt", ["tiếng", "việt"]),
        (unicodedata.normalize("NFD", "Tiếng Việt"), ["tiếng", "việt"]),
        ("İSTANBUL I\u0307stanbul i\u0307stanbul ISTANBUL", ["istanbul"] * 4),
        ("kişi KİŞİ", ["kişi"] * 2),
        ("\u00cc\u00cdĨĮ JI", ["ìíĩį", "ji"]),
        ("family \U0001f468\u200d\U0001f469\u200d\U0001f467 fun ❤\ufe0f 1\ufe0f\u20e3", ["family", "fun", "1"]),
        ("مُحَمَّد محمد", [unicodedata.normalize("NFC", "مُحَمَّد"), "محمد"]),  # vowel signs
        ("می\u200cخواهم co\u00adop", ["میخواهم", "coop"]),  # joiners are not part of a word
        ("\u039f\u0394\u039f\u03a3 \u03bf\u03b4\u03cc\u03c2", ["\u03bf\u03b4\u03bf\u03c2", "\u03bf\u03b4\u03cc\u03c2"]),
        ("한국어 " + unicodedata.normalize("NFD", "한국"), ["한국어", "한국"]),
        ("\u0301 \u0301abc", ["abc"]),
        ("", []),
    ],
)  # fmt: skip
def test_words(value: str, expected: list[str]) -> None:
    for unspaced in ("words", "characters", "bigrams"):
        assert words(value, unspaced) == expected


@pytest.mark.parametrize(
    ("value", "whole", "characters", "bigrams"),
    [
        ("手机壳", ["手机壳"], ["手", "机", "壳"], ["手机", "机壳"]),
        ("手 iPhone15壳", ["手", "iphone15壳"], ["手", "iphone15", "壳"], ["手", "iphone15", "壳"]),
        ("タワー", ["タワー"], ["タ", "ワ", "ー"], ["タワ", "ワー"]),
        ("か\u3099京", ["が京"], ["が", "京"], ["が京"]),
        ("สวัส", ["สวัส"], ["ส", "วั", "ส"], ["สวั", "วัส"]),  # a Thai vowel sign
        ("\x01東京\x02\x03", ["東京"], ["東", "京"], ["東京"]),
    ],
)  # fmt: skip
def test_scripts_without_spaces(value: str, whole: list[str], characters: list[str], bigrams: list[str]) -> None:
    assert words(value, "words") == whole
    assert words(value, "characters") == characters
    assert words(value, "bigrams") == bigrams


def test_the_language_of_the_machine_does_not_matter() -> None:
    """TensorFlow's own lower case of I is that of the machine's language."""
    code = (
        "from tfmtl._keras import tf; from tfmtl.data import text\n"
        "found = text.words(tf.constant(['TITLE \\u00dcI \\u00cc\\u00cd J\\u0303'])).to_list()[0]\n"
        "print(ascii([word.decode() for word in found]))"
    )
    environment = {**os.environ, "LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == r"['title', '\xfci', '\xec\xed', 'j\u0303']"


TITLES = [
    "हिन्दी",
    "हिन्दु",
    "cafe\u0301",
    "café",
    "cafe",
    "東京都",
    "京都東",
    "İzmir",
]
SCHEMA = Schema(
    [Categorical("user")], [Categorical("item"), Text("title", min_count=1, max_length=4)], labels=[Label("liked")]
)


def table() -> pd.DataFrame:
    row = np.arange(len(TITLES))
    return pd.DataFrame(
        {"user": [f"u{k % 2}" for k in row], "item": [f"i{k}" for k in row], "title": TITLES, "liked": row % 2 * 1.0}
    )


def test_titles_encode_alike_in_tables_files_and_exports(tmp_path: pathlib.Path) -> None:
    preprocessor = Preprocessor.fit(SCHEMA, table())
    raw = to_columns(table(), SCHEMA.features.values())
    encoded = encode(preprocessor, raw)["title"].numpy().tolist()
    assert encoded[2] == encoded[3]
    assert len({tuple(row) for row in encoded}) == len(TITLES) - 1
    assert all(index != 1 for row in encoded for index in row)  # no word is unknown
    assert "café" in preprocessor.vocabulary("title").tolist()
    write_tfrecords(table(), SCHEMA, tmp_path / "a.tfrecord")
    read = pd.concat(open_files(tmp_path, SCHEMA).chunks())
    assert encode(preprocessor, to_columns(read, SCHEMA.features.values()))["title"].numpy().tolist() == encoded
    network = build_network(
        preprocessor, [BinaryClassification("liked")], tfmtl.SharedBottom(units=[3]), embedding_dim=2
    )
    model = MultiTaskModel(network, [BinaryClassification("liked")], preprocessor)
    served = tf.saved_model.load(str(tfmtl.export(model, tmp_path / "served"))).signatures["rank"]
    answer = served(**{name: tf.constant(values, tf.string) for name, values in raw.items()})["liked"]
    assert np.abs(answer - model.predict(table(), verbose=0)["liked"]).max() == 0.0


def test_a_feature_saved_without_the_choice_keeps_its_words() -> None:
    config = SCHEMA.get_config()
    assert Schema.from_config(config) == SCHEMA
    del config["candidate"][1]["unspaced"]
    assert Schema.from_config(config).features["title"] == Text("title", min_count=1, max_length=4, unspaced="words")
    with pytest.raises(ValueError, match="`unspaced` of feature 'a' must be 'words', 'characters' or 'bigrams'"):
        Text("a", unspaced="letters")  # type: ignore[arg-type]
