"""Names of layers and of serving inputs for features with names that TensorFlow does not accept."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Collection, Iterable

from tfmtl._checks import require

_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")  # the names of scopes in a graph of TensorFlow
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_OTHER = re.compile(r"[^A-Za-z0-9_]")

_FILTERS = ("exclude_ids", "restrict_ids", "k")
_OUTPUTS = ("ids", "scores")


def is_plain(name: object) -> bool:
    """Return whether a name has letters, digits and underscores of ASCII only, and begins with a letter."""
    return isinstance(name, str) and _PLAIN.fullmatch(name) is not None


def require_task_name(argument: str, name: object) -> None:
    """Raise `ValueError` unless a name of a task is one of a layer, of values of a log and of a serving output."""
    require(
        is_plain(name),
        f"A task's `{argument}` must be letters, digits and underscores of ASCII after a letter, since it names layers "
        "and a serving output; choose such a name, and give the label's column as `column`.",
        **{argument: name},
    )


def layer_name(name: str) -> str:
    """Return a name that Keras accepts for a layer; distinct identifiers have distinct ones, and most are unchanged.

    Example:
        >>> layer_name("user_id_embedding"), layer_name("größe_mean"), layer_name("_user")
        ('user_id_embedding', 'gr.f6..df.e_mean', '.5f.user')
    """
    if _SCOPE.fullmatch(name):
        return name
    escaped = _OTHER.sub(lambda found: f".{ord(found[0]):x}.", name)
    return escaped if escaped[:1] != "_" else f".5f.{escaped[1:]}"


def serving_names(names: Iterable[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Return the serving inputs of features by their names.

    A feature keeps its name unless TensorFlow refuses it: Python's keywords and `self`, other letters than those of
    ASCII, names that begin with an underscore, and names that differ from an earlier one only in case.

    Args:
        names: names of all features of a schema, in order.
        taken: names of other inputs.

    Example:
        >>> serving_names(["user", "User", "größe", "class", "_user"])
        {'user': 'user', 'User': 'User_2', 'größe': 'grosse', 'class': 'class_2', '_user': 'user_3'}
    """
    names = list(names)
    used = {name.casefold() for name in taken}
    found = {}
    for name in names:
        if is_plain(name) and not keyword.iskeyword(name) and name != "self" and name.casefold() not in used:
            found[name] = name
            used.add(name.casefold())
    for name in names:
        if name not in found:
            found[name] = _free(name, used)
            used.add(found[name].casefold())
    return {name: found[name] for name in names}


def _free(name: str, used: Collection[str]) -> str:
    letters = unicodedata.normalize("NFKD", name.replace("ß", "ss"))
    plain = _OTHER.sub("", letters.encode("ascii", "ignore").decode()).lstrip("_0123456789") or "feature"
    candidate, number = plain, 2
    while candidate.casefold() in used or keyword.iskeyword(candidate) or candidate == "self":
        candidate, number = f"{plain}_{number}", number + 1
    return candidate


def weight_input(task: str) -> str:
    """Return the name of the serving input that holds the fusion weight of a task."""
    return f"weight_{task}"


def filter_inputs(tasks: Iterable[str]) -> set[str]:
    """Return the serving inputs of a model with retrieval that are no features."""
    return {*_FILTERS, *map(weight_input, tasks)}


def check_served(features: Iterable[str], tasks: Collection[str]) -> None:
    """Raise `ValueError` if features of queries and contexts, or tasks, have names of serving inputs or outputs.

    Also if the names of two tasks differ only in case, which TensorFlow does not distinguish in the names of inputs.
    """
    taken = sorted(filter_inputs(tasks) & set(features))
    cure = "choose other names, and give the columns as `column`"
    require(not taken, f"The features {taken} have names of serving inputs; {cure}.")
    taken = sorted({*_OUTPUTS} & set(tasks))
    require(not taken, f"The tasks {taken} have names of serving outputs; {cure}.")
    folded = [task.casefold() for task in tasks]
    alike = sorted(task for task in tasks if folded.count(task.casefold()) > 1)
    require(not alike, f"The tasks {alike} differ only in case, and so do their inputs `weight_<task>`; {cure}.")
