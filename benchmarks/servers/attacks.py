"""Hostile requests to every signature of an export: answered as by the model in memory, or refused by name."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from servers import hostile
from tfmtl.models import MultiTaskModel
from tfmtl.serving import Signature, to_examples
from tfmtl.serving.signature import FromExamples
from tfmtl.serving.verification import difference

Request = dict[str, tf.Tensor]
BLOCK = 64
"""Well-formed requests that the model in memory answers together."""
_NO_PROTO = "DecodeProtoV2"
"""Part of the refusal of bytes that are no proto, in the one input of such a signature."""
_ROUNDING = 1e-3
"""Relative difference allowed between a row alone and in a block."""
_TYPES = "was expected to be a"
"""Part of TensorFlow's own refusal of another type, which comes before the signature and holds the input's position."""
EDGES = (0, 1, -1, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**63 - 1, -(2**63))


@dataclasses.dataclass
class Outcome:
    """The numbers of requests by outcome, and the memory that they added.

    Attributes:
        answered: requests with the answer of the model in memory.
        refused: requests that were refused with the name of an input.
        megabytes: growth of the largest memory of the process after the first requests.
    """

    answered: int = 0
    refused: int = 0
    megabytes: float = 0.0


def attack(model: MultiTaskModel, signature: Signature, served: Any, count: int, rng: np.random.Generator) -> Outcome:
    """Send requests to a signature: half of them well-formed with hostile values, half of them malformed.

    Args:
        model: the exported model.
        signature: the signature in memory.
        served: the same signature of the loaded export.
        count: number of requests.
        rng: source of the requests.

    Raises:
        AssertionError: if an answer differs, is not finite, or a refusal names no input.
    """
    found, before = Outcome(), 0.0
    while found.answered + found.refused < count:
        for request, row, weight in _alone(model, signature, rng):
            answer = served(**request)
            apart = _apart(row, answer, weight)
            assert not apart, f"A row alone and in a block differ by {apart} in {row}, {answer}: {request}"
            found.answered += 1
        for _ in range(BLOCK):
            request = _malformed(model, signature, rng)
            answer, refusal = _answer(served, request)
            if answer is None:
                plain = signature.of if isinstance(signature, FromExamples) else signature
                named = [name for name in (*signature.inputs, *plain.inputs, _TYPES, _NO_PROTO) if name in refusal]
                assert named, f"A refusal names no input: {refusal[:500]}"
                found.refused += 1
            else:
                assert all(np.isfinite(v).all() for v in answer.values() if v.dtype.is_floating), list(request)
                found.answered += 1
        before = before or _megabytes()
    found.megabytes = _megabytes() - before
    return found


def _apart(row: Request, answer: Request, weight: float) -> dict[str, float]:
    """Return the outputs that differ, after ids with scores that are equal to rounding were brought into one order."""
    if "ids" in row and "scores" in row:
        row, answer = _in_order(row, answer, weight)
    return {name: difference(v, answer[name]) for name, v in row.items() if not _alike(name, v, answer[name], weight)}


def _in_order(row: Request, answer: Request, weight: float) -> tuple[Request, Request]:
    """Return two answers to one request with their ids in one order.

    Ids swap where their scores are equal to rounding. At the end of the list, one of several ids with the last score
    may be in one answer alone: such positions keep the score and lose the other values. Scores are compared afterwards,
    so that no other ids can swap.
    """
    found = {name: i for i, name in enumerate(answer["ids"].numpy()[0].tolist())}
    names, scores = row["ids"].numpy()[0].tolist(), row["scores"]
    last = np.isclose(scores, scores[:, -1:], rtol=_ROUNDING, atol=_ROUNDING * weight)[0]
    absent = [i for i, name in enumerate(names) if name not in found and last[i]]
    spare = iter(i for name, i in found.items() if name not in names)
    order = [next(spare, i) if i in absent else found.get(name, i) for i, name in enumerate(names)]
    kept = [i for i in range(len(names)) if i not in absent]
    listed = answer["ids"].shape[:2]  # tasks of the query have one value for all ids

    def ordered(values: Request, positions: list[int]) -> Request:
        chosen = {n: positions if n == "scores" else [positions[i] for i in kept] for n in values}
        return {n: tf.gather(v, chosen[n], axis=1) if v.shape[:2] == listed else v for n, v in values.items()}

    return ordered(row, list(range(len(names)))), ordered(answer, order)


def _alike(name: str, expected: tf.Tensor, answer: tf.Tensor, weight: float) -> bool:
    """Return whether the outputs of a row alone and in a block are equal to rounding.

    TensorFlow multiplies a vector and a matrix in different orders. Units of inputs at the edges of float32 and fused
    scores, which a request may weigh by a million, are sums of large terms that may cancel; scores round in relation to
    the largest weight.
    """
    if name != "scores":
        return difference(expected, answer) <= _ROUNDING
    return bool(np.allclose(answer, expected, rtol=_ROUNDING, atol=_ROUNDING * weight))


def _answer(served: Any, request: Request) -> tuple[Request | None, str]:
    """Return the answer of a signature, or None and the text of its refusal."""
    try:
        return served(**request), ""
    except UnicodeDecodeError:  # the error quotes the bytes of a damaged proto, which Python cannot show
        return None, "examples"
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError, TypeError, ValueError) as error:
        return None, str(error)


def _alone(
    model: MultiTaskModel, signature: Signature, rng: np.random.Generator
) -> Iterator[tuple[Request, Request, float]]:
    """Yield requests of one row, their answers as rows of one request of many rows, and their largest weight."""
    plain = signature.of if isinstance(signature, FromExamples) else signature
    request = hostile.request(model, plain, BLOCK, rng)
    sent = {"examples": to_examples(request)} if plain is not signature else request
    expected = signature.traced(**sent)
    given = [np.nan_to_num(v, posinf=0.0, neginf=0.0) for n, v in request.items() if n.startswith("weight_")]
    largest = np.max(np.clip(np.abs([np.ones(BLOCK), *given]), 0.0, 1e6), axis=0)
    for i in range(BLOCK):
        row = {name: value[i : i + 1] for name, value in sent.items()}
        yield row, {name: value[i : i + 1] for name, value in expected.items()}, float(largest[i])


def _malformed(model: MultiTaskModel, signature: Signature, rng: np.random.Generator) -> Request:
    """Return a request of three rows with one change."""
    plain = signature.of if isinstance(signature, FromExamples) else signature
    request = hostile.request(model, plain, 3, rng)
    if plain is signature:
        name = str(rng.choice(list(request)))
        changed: Any = TENSORS[int(rng.integers(len(TENSORS)))](request[name])
        return {**{n: v for n, v in request.items() if n != name}, **({} if changed is None else {name: changed})}
    examples = [tf.train.Example.FromString(proto) for proto in to_examples(request).numpy()]
    change = PROTOS[int(rng.integers(len(PROTOS)))]
    name = str(rng.choice(list(examples[0].features.feature) or ["k"]))
    return {"examples": tf.constant([change(examples[0], name), *(e.SerializeToString() for e in examples[1:])])}


def _edge(value: tf.Tensor) -> tf.Tensor:
    """Return a value of integers at the edges of their type, or the value."""
    if not value.dtype.is_integer:
        return value
    allowed = [edge for edge in EDGES if value.dtype.min <= edge <= value.dtype.max]
    return tf.constant(np.resize(allowed, value.shape), value.dtype)


TENSORS: list[Callable[[tf.Tensor], tf.Tensor | None]] = [
    lambda value: None,  # absent
    lambda value: value[:-1],  # a row fewer
    lambda value: tf.concat([value, value], 0),  # more rows
    lambda value: value[tf.newaxis],  # too deep
    lambda value: tf.zeros(value.shape[:-1], value.dtype),  # too flat
    lambda value: tf.cast(value, tf.float32) if value.dtype.is_integer else tf.fill(value.shape, 2**40),  # other types
    lambda value: tf.fill(value.shape, True),
    lambda value: value[:0],  # no row
    lambda value: tf.tile(value, [1, 2000]) if value.shape.rank > 1 else value,  # a long list
    _edge,
]
"""Changes of one input of a request of tensors."""


def _with(example: tf.train.Example, name: str, **values: Any) -> bytes:
    changed = tf.train.Example.FromString(example.SerializeToString())
    changed.features.feature[name].Clear()
    for kind, value in values.items():
        getattr(changed.features.feature[name], kind).value.extend(value)
    return bytes(changed.SerializeToString())


PROTOS: list[Callable[[tf.train.Example, str], bytes]] = [
    lambda example, name: b"",
    lambda example, name: b"\xff" * 7,
    lambda example, name: example.SerializeToString()[:-3],
    lambda example, name: _with(example, name),
    lambda example, name: _with(example, name, int64_list=[EDGES[len(name) % len(EDGES)]]),
    lambda example, name: _with(example, name, float_list=[float("nan"), 1e38]),
    lambda example, name: _with(example, name, bytes_list=[b"\xc3\x28" * 10_000]),
    lambda example, name: _with(example, name, bytes_list=[b"x"] * 20_000),
    lambda example, name: _with(example, "no such feature", int64_list=[1]),
    *(lambda example, name, edge=edge: _with(example, "k", int64_list=[max(-(2**63), edge)]) for edge in EDGES),  # type: ignore[misc]
]
"""Changes of one `tf.Example`."""


def _megabytes() -> float:
    """Return the largest memory that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
