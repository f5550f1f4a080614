"""In-graph splitting of strings into tokens, for learning a vocabulary, training and serving alike."""

from __future__ import annotations

from tfmtl._keras import tf

_NOT_WORD = r"[^\pL\pN]+"  # RE2: every character except letters and numbers of any script separates words


def words(text: tf.Tensor) -> tf.RaggedTensor:
    """Split text [B] into lower-case words [B, (words)].

    Example:
        >>> words(tf.constant(["Toy Story (1995)"])).to_list()
        [[b'toy', b'story', b'1995']]
    """
    lowered = tf.strings.lower(text, encoding="utf-8")
    return tf.strings.split(tf.strings.regex_replace(lowered, _NOT_WORD, " "))


def pieces(text: tf.Tensor, separator: str) -> tf.RaggedTensor:
    """Split strings [B] at `separator` into non-empty pieces [B, (pieces)], blanks around them removed.

    Example:
        >>> pieces(tf.constant(["Action| Comedy", ""]), "|").to_list()
        [[b'Action', b'Comedy'], []]
    """
    split = tf.strings.strip(tf.strings.split(text, sep=separator))
    kept: tf.RaggedTensor = tf.ragged.boolean_mask(split, tf.not_equal(split, ""))
    return kept
