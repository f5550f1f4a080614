"""The form of an entry of the registry of benchmarks, and the folders of data that an entry may name."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping

from environments import ENVIRONMENTS

DATA = (
    "census_income",
    "ciao",
    "filmtrust",
    "hillstrom",
    "instacart_sample",
    "ml_100k",
    "ml_1m",
    "open_bandit_small",
    "steam_reviews",
    "tmall",
    "tmall_brands",
)
"""Folders of data that a benchmark may name in braces."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A benchmark.

    Args:
        name: name of its section in the results.
        question: the question that it answers, as one sentence.
        script: a file of this folder.
        arguments: arguments of the script. `{census_income}` is replaced by that folder of data, `{deepctr}` by the
            interpreter of that peer; the benchmark needs all that its braces name.
        optional: further arguments, used if their folders of data exist; otherwise the script takes data of packages.
        quick: arguments after all others with which it takes a minute or two; the figures then mean nothing.
    """

    name: str
    question: str
    script: str
    arguments: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()

    def needs(self, *, quick: bool = False) -> tuple[str, ...]:
        """Return the folders of data that it needs."""
        given = (*self.arguments, *(self.quick if quick else ()))
        return tuple(name for name in _named(given) if name in DATA)

    @property
    def peers(self) -> tuple[str, ...]:
        """The peers that it needs."""
        return tuple(name for name in _named(self.arguments) if name in ENVIRONMENTS)

    def command(self, places: Mapping[str, str], *, quick: bool = False) -> list[str]:
        """Return the arguments of the script; `places` holds the paths of the folders and interpreters that exist."""
        optional = self.optional if all(name in places for name in _named(self.optional)) else ()
        given = (*self.arguments, *optional, *(self.quick if quick else ()))
        return [argument.format_map(places) for argument in given]


def _named(arguments: Iterable[str]) -> list[str]:
    return re.findall(r"\{([\w-]+)\}", " ".join(arguments))


def places(data: pathlib.Path | None, root: pathlib.Path) -> dict[str, str]:
    """Return the paths of the folders of data that exist, and of the interpreters of all peers."""
    found = {name: str(data / name) for name in DATA if data and (data / name).is_dir()}
    return found | {name: str(root / peer.python) for name, peer in ENVIRONMENTS.items()}
