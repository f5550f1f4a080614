from __future__ import annotations

import random
import unicodedata

import pytest

from tfmtl._keras import tf
from tfmtl.data.normalization import nfc


def found(texts: list[str]) -> list[str]:
    return [text.decode() for text in nfc(tf.constant([text.encode() for text in texts], tf.string)).numpy()]


def test_every_code_point_alone_and_after_a_letter() -> None:
    points = [chr(p) for p in range(0x2FA20) if not 0xD800 <= p < 0xE000 and not 0x3400 <= p < 0xA000]
    texts = [*points, *("a" + point + "b" for point in points), *(unicodedata.normalize("NFD", p) for p in points)]
    assert found(texts) == [unicodedata.normalize("NFC", text) for text in texts]


def test_random_orders_of_letters_and_marks() -> None:
    rng = random.Random(0)
    marks = [chr(p) for p in range(0x300, 0x370)]
    pools = [marks, list("aeiouAEIOU\u0415\u0418\u03b1\u03c9"), [chr(p) for p in range(0x1100, 0x1113)]]
    pools += [[chr(p) for p in range(0x1161, 0x1176)], [chr(p) for p in range(0x11A7, 0x11C3)]]
    pools += [
        list("\u09c7\u09be\u0cc6\u0cc2\u0cd5\u0dd9\u0dcf\u0dca\u1025\u102e\u3046\u3099"),
        list("\u1ea5\u01d6\uac00\u212b\u0958"),
    ]
    texts = ["".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(0, 8))) for _ in range(20_000)]
    assert found(texts) == [unicodedata.normalize("NFC", text) for text in texts]


@pytest.mark.parametrize("texts", [[], [""], ["", "plain", ""]])
def test_texts_without_marks(texts: list[str]) -> None:
    assert found(texts) == texts


def test_marks_do_not_cross_from_one_text_to_the_next() -> None:
    assert found(["e", "\u0301", "e\u0301"]) == ["e", "\u0301", "\u00e9"]


def test_bytes_that_are_no_text_become_the_replacement() -> None:
    assert nfc(tf.constant([b"e\xcc\x81\xff"])).numpy()[0].decode() == "\u00e9\ufffd"
