"""In-graph splitting of strings into tokens, for learning a vocabulary, training and serving alike."""

from __future__ import annotations

from typing import Literal

from tfmtl._keras import tf
from tfmtl.data.normalization import nfc

Unspaced = Literal["words", "characters", "bigrams"]

_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\x{30FC}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts without spaces between words, as a character class of RE2; U+30FC is the long vowel of Katakana."""

_CHARACTER = rf"([{_SCRIPTS}]\pM*)"

_ASCII = r"[\x00-\x7F]*"

_INVISIBLE = r"[\x{AD}\x{200C}\x{200D}\x{2060}\x{FE00}-\x{FE0F}\x{FEFF}\x{E0000}-\x{E01EF}\p{Me}]+"
"""Soft hyphen, joiners, byte order mark, variation selectors, tags and enclosing marks: they are no part of a word."""

_CASED = {"\u0130": "i", "\u00cc": "\u00ec", "\u00cd": "\u00ed", "\u0128": "\u0129", "\u012e": "\u012f"}
"""Letters that TensorFlow lowers as the language of the machine does, besides I and J of ASCII."""

_SEPARATORS = r"[^\pL\pN\pM]+"


def words(text: tf.Tensor, unspaced: Unspaced = "bigrams") -> tf.RaggedTensor:
    r"""Split text [B] into lower-case words [B, (words)].

    A word is a run of letters and numbers with their marks, in NFC. `unspaced` is as in `Text`.

    Example:
        >>> words(tf.constant(["Toy Story (1995)"])).to_list()
        [[b'toy', b'story', b'1995']]
        >>> [word.decode() for word in words(tf.constant(["\u624b\u673a\u58f3 15"])).to_list()[0]]
        ['\u624b\u673a', '\u673a\u58f3', '15']
    """
    text = tf.strings.lower(text)  # of ASCII alone, so that it does not depend on the language of the machine
    rows = tf.where(tf.logical_not(tf.strings.regex_full_match(text, _ASCII)))
    text = tf.tensor_scatter_nd_update(text, rows, _international(tf.gather_nd(text, rows), unspaced))
    return tf.strings.split(tf.strings.regex_replace(text, _SEPARATORS, " "))


def _international(text: tf.Tensor, unspaced: Unspaced) -> tf.Tensor:
    """Prepare text outside of ASCII: NFC, lower case, no marks without a letter, blanks in scripts without spaces."""
    text = nfc(tf.strings.regex_replace(text, _INVISIBLE, ""))
    for upper, lower in _CASED.items():
        text = tf.strings.regex_replace(text, upper, lower)
    text = tf.strings.lower(tf.strings.regex_replace(text, "i\u0307", "i"), encoding="utf-8")
    text = tf.strings.regex_replace(tf.strings.regex_replace(text, _SEPARATORS, " "), r"(^|[ ])\pM+", " ")
    if unspaced == "characters":
        return tf.strings.regex_replace(text, _CHARACTER, r" \1 ")
    return _with_bigrams(text) if unspaced == "bigrams" else text


def _with_bigrams(text: tf.Tensor) -> tf.Tensor:
    """Write each run of characters of a script without spaces as its overlapping pairs: "abc" as " ab bc "."""
    text = tf.strings.regex_replace(text, rf"([{_SCRIPTS}][{_SCRIPTS}\pM]*)", " \x01\\1\x02 ")
    text = tf.strings.regex_replace(text, _CHARACTER, "\\1\x03\\1")
    text = tf.strings.regex_replace(text, f"\x01{_CHARACTER}\x03", "")
    return tf.strings.regex_replace(text, f"\x03{_CHARACTER}\x02", "")


def pieces(text: tf.Tensor, separator: str) -> tf.RaggedTensor:
    """Split strings [B] at `separator` into non-empty pieces [B, (pieces)], blanks around them removed.

    Example:
        >>> pieces(tf.constant(["Action| Comedy", ""]), "|").to_list()
        [[b'Action', b'Comedy'], []]
    """
    split = tf.strings.strip(tf.strings.split(text, sep=separator))
    kept: tf.RaggedTensor = tf.ragged.boolean_mask(split, tf.not_equal(split, ""))
    return kept
