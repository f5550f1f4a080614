"""Unicode normalization form C (NFC) with operations of TensorFlow alone, so that every server can run it."""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tfmtl._keras import tf

_HANGUL, _LEADING, _VOWEL, _TRAILING = 0xAC00, 0x1100, 0x1161, 0x11A7
_VOWELS, _TRAILINGS, _SYLLABLES = 21, 28, 11_172
_BITS = 21  # of a code point
_BLOCKS = ((0xA0, 0x3400), (0xA000, 0xAC00), (0xF900, 0x1F000), (0x2F800, 0x2FA20))
"""Ranges outside of which no code point has a combining class or a decomposition, except syllables of Hangul."""


class _Tables(NamedTuple):
    """The data of the Unicode standard that normalization reads, in sorted arrays.

    Attributes:
        decomposed: code points [n] with a canonical decomposition.
        parts: their full decompositions [n, 4], padded with -1.
        marks: code points [m] with a combining class other than 0.
        classes: their combining classes [m].
        pairs: keys [p] of pairs that compose, (first << 21) + second.
        composed: the code point [p] of each pair.
        suspects: regular expression of a text that may not be in NFC.
    """

    decomposed: np.ndarray
    parts: np.ndarray
    marks: np.ndarray
    classes: np.ndarray
    pairs: np.ndarray
    composed: np.ndarray
    suspects: str


def nfc(texts: tf.Tensor) -> tf.Tensor:
    r"""Return strings [B] in NFC: an accent as a code point of its own is joined to its letter.

    Example:
        >>> nfc(tf.constant(["cafe\u0301"])).numpy()[0].decode() == "caf\u00e9"
        True

    Reference:
        Unicode Standard Annex #15, "Unicode Normalization Forms", https://www.unicode.org/reports/tr15/, and section
        3.11 of the standard. The data are those of the Python that builds the graph, which holds them as constants.

    Cost: one regular expression per string; about 1 us per character of strings that may not be in NFC.
    """
    suspect = tf.strings.regex_full_match(texts, _tables().suspects)
    rows = tf.where(suspect)
    return tf.tensor_scatter_nd_update(texts, rows, _composed(tf.gather_nd(texts, rows)))


def _composed(texts: tf.Tensor) -> tf.Tensor:
    points = tf.strings.unicode_decode(texts, "UTF-8")
    rows, flat = _decomposed(tf.cast(points.value_rowids(), tf.int32), points.flat_values)
    classes = _classes_of(flat)
    # marks are sorted by their class behind their letter; the order of equal ones stays
    runs = tf.cumsum(tf.cast(tf.equal(classes, 0) | _begins(rows), tf.int32))
    order = tf.argsort(tf.cast(runs, tf.int64) * 256 + tf.cast(classes, tf.int64), stable=True)
    state = tf.gather(rows, order), tf.gather(flat, order), tf.gather(classes, order), tf.constant(True)
    shapes = (*[tf.TensorShape([None])] * 3, tf.TensorShape([]))
    rows, flat, _, _ = tf.while_loop(_joined_any, _compose_once, state, shapes)
    ragged = tf.RaggedTensor.from_value_rowids(flat, tf.cast(rows, tf.int64), tf.shape(texts, tf.int64)[0])
    return tf.strings.unicode_encode(ragged, "UTF-8")


def _decomposed(rows: tf.Tensor, flat: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return code points with their canonical decompositions in their positions, and the row of each."""
    tables = _tables()
    found, index = _find(tables.decomposed, flat)
    alone = tf.stack([flat, *[tf.fill(tf.shape(flat), -1)] * 3], axis=1)
    parts = tf.where(found[:, tf.newaxis], tf.gather(tf.constant(tables.parts), index), alone)
    syllable = flat - _HANGUL
    hangul = (syllable >= 0) & (syllable < _SYLLABLES)
    trailing = syllable % _TRAILINGS
    letters = [
        _LEADING + syllable // (_VOWELS * _TRAILINGS),
        _VOWEL + syllable % (_VOWELS * _TRAILINGS) // _TRAILINGS,
        tf.where(trailing > 0, _TRAILING + trailing, -1),
        tf.fill(tf.shape(flat), -1),
    ]
    parts = tf.where(hangul[:, tf.newaxis], tf.stack(letters, axis=1), parts)
    kept = parts >= 0
    repeated = tf.repeat(rows[:, tf.newaxis], 4, axis=1)
    return tf.boolean_mask(repeated, kept), tf.boolean_mask(parts, kept)


def _joined_any(rows: tf.Tensor, flat: tf.Tensor, classes: tf.Tensor, joined: tf.Tensor) -> tf.Tensor:
    return joined


def _compose_once(
    rows: tf.Tensor, flat: tf.Tensor, classes: tf.Tensor, joined_before: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Join every letter with the first code point after it that composes with it; return whether any was joined."""
    size = tf.shape(flat)[0]
    positions = tf.range(size)
    letter, has_letter = _letter_before(rows, classes)
    joined = _pair(tf.gather(flat, letter), flat)
    between = tf.gather(classes, tf.maximum(positions - 1, 0))  # marks are sorted, so that this is the largest class
    free = tf.equal(letter, positions - 1) | (between < classes)
    able = has_letter & free & (joined >= 0)
    first = tf.math.unsorted_segment_min(tf.where(able, positions, size), letter, size)
    picked = able & tf.equal(tf.gather(first, letter), positions)
    picked &= tf.logical_not(tf.gather(picked, letter))  # a letter that is joined to its predecessor waits
    target = tf.boolean_mask(letter, picked)[:, tf.newaxis]
    flat = tf.tensor_scatter_nd_update(flat, target, tf.boolean_mask(joined, picked))
    kept = tf.logical_not(picked)
    return (
        tf.boolean_mask(rows, kept),
        tf.boolean_mask(flat, kept),
        tf.boolean_mask(classes, kept),
        tf.reduce_any(picked),
    )


def _letter_before(rows: tf.Tensor, classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the last position of class 0 before each position, and whether the text has such a position."""
    is_letter = tf.equal(classes, 0)
    letters = tf.concat([[0], tf.cast(tf.where(is_letter)[:, 0], tf.int32)], axis=0)
    count = tf.cumsum(tf.cast(is_letter, tf.int32), exclusive=True)
    letter = tf.gather(letters, count)
    return letter, (count > 0) & tf.equal(tf.gather(rows, letter), rows)


def _pair(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Return the code points that pairs compose to, -1 for the others."""
    tables = _tables()
    found, index = _find(tables.pairs, tf.cast(first, tf.int64) * 2**_BITS + tf.cast(second, tf.int64))
    joined = tf.where(found, tf.gather(tf.constant(tables.composed), index), -1)
    leading, vowel = first - _LEADING, second - _VOWEL
    open_syllable = (leading >= 0) & (leading < 19) & (vowel >= 0) & (vowel < _VOWELS)
    joined = tf.where(open_syllable, _HANGUL + (leading * _VOWELS + vowel) * _TRAILINGS, joined)
    syllable, trailing = first - _HANGUL, second - _TRAILING
    closed = (syllable >= 0) & (syllable < _SYLLABLES) & tf.equal(syllable % _TRAILINGS, 0)
    return tf.where(closed & (trailing > 0) & (trailing < _TRAILINGS), first + trailing, joined)


def _classes_of(points: tf.Tensor) -> tf.Tensor:
    tables = _tables()
    found, index = _find(tables.marks, points)
    return tf.where(found, tf.gather(tf.constant(tables.classes), index), 0)


def _find(keys: np.ndarray, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return whether each value is among the sorted keys, and its position."""
    index = tf.minimum(tf.searchsorted(tf.constant(keys), values), len(keys) - 1)
    return tf.equal(tf.gather(tf.constant(keys), index), values), index


def _begins(rows: tf.Tensor) -> tf.Tensor:
    """Return whether a position is the first of its text."""
    return tf.concat([tf.ones_like(rows[:1], tf.bool), tf.not_equal(rows[1:], rows[:-1])], axis=0)


@functools.cache
def _tables() -> _Tables:
    every = itertools.chain.from_iterable(itertools.starmap(range, _BLOCKS))
    points = [p for p in every if unicodedata.combining(chr(p)) or unicodedata.decomposition(chr(p))]
    full = {p: unicodedata.normalize("NFD", chr(p)) for p in points}
    decomposed = [p for p in points if full[p] != chr(p)]
    marks = [p for p in points if unicodedata.combining(chr(p))]
    pairs = {}
    for point in decomposed:
        parts = [int(part, 16) for part in unicodedata.decomposition(chr(point)).split()]
        if len(parts) == 2 and unicodedata.normalize("NFC", chr(point)) == chr(point):
            pairs[(parts[0] << _BITS) + parts[1]] = point
    unstable = {p for p in decomposed if unicodedata.normalize("NFC", chr(p)) != chr(p)}
    jamo = {*range(_VOWEL, _VOWEL + _VOWELS), *range(_TRAILING + 1, _TRAILING + _TRAILINGS)}
    suspects = unstable | set(marks) | {key & (2**_BITS - 1) for key in pairs} | jamo
    return _Tables(
        np.asarray(decomposed, np.int32),
        np.asarray([[*map(ord, full[p]), -1, -1, -1][:4] for p in decomposed], np.int32),
        np.asarray(marks, np.int32),
        np.asarray([unicodedata.combining(chr(p)) for p in marks], np.int32),
        np.asarray(sorted(pairs), np.int64),
        np.asarray([pairs[key] for key in sorted(pairs)], np.int32),
        rf"\C*[{_character_class(suspects)}]\C*",  # \C is any byte, also one that is no text
    )


def _character_class(points: Iterable[int]) -> str:
    """Return the ranges of a character class of RE2."""
    ranges: list[list[int]] = []
    for point in sorted(points):
        if ranges and ranges[-1][1] == point - 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in ranges)
