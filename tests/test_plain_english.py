"""Words that stop a reader are absent from docstrings, comments, messages and documents; CONTRIBUTING lists them."""

from __future__ import annotations

import io
import pathlib
import re
import tokenize

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("tfmtl", "tests", "examples", "benchmarks")
SKIPPED = {"tests/test_plain_english.py", "benchmarks/RESULTS.md", "docs/methods.md"}
FILES = [
    path
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "saved_models").glob("*.md"),
        *(p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))),
    ]
    if (name := str(path.relative_to(ROOT))) not in SKIPPED
]

_COUNTED = (
    r"one|two|three|\d+|bytes|floats|rows|steps|values|numbers|times|weights?|vectors?|gates?|loss(?:es)?|logits?|gradients?|"
    r"embeddings?|files?|models?|copy|copies|names?|seeds?|lines?|entry|entries|index|layers?|networks?|towers?|ranks?|"
    r"samples?|labels?|parts?|tables?|functions?|workers?|requests?|product|products|state|draws?"
)
_UNITS = (
    "row|task|step|expert|modality|user|query|feature|replica|worker|file|column|batch|epoch|fold|member|head|second|core|"
    "group|candidate|item|level|call|entry|line|position|table|variable|layer|trial|run|signature|label|value|question|story"
)
RULES = {
    "per row, not a row": rf"\b(?:{_COUNTED}) an? (?:{_UNITS})\b",
    "name the noun, not what or whoever": r"\b(?:whoever|whatever|whichever|whose)\b",
    "name the noun, not a what-clause": r"\bwhat (?!if\b|\|)(?!\w+[^.?]*\?)",
    "again, not anew": r"\banew\b",
    "before or preceding, not in front": r"\bin front\b",
    "position, not place": r"(?<!in )(?<!takes )(?<!\.)\bplaces?\b(?! (?:to|of work|where))",
    "except, not but": (
        r"\b(?:[Aa]ll|(?:[Ee]very|[Aa]ny|[Nn]o) \w+|[Ee]very|[Ee]verything|[Ee]veryone|[Nn]othing|[Nn]one|each)"
        r" but\b"
    ),
    "code does not say, tell, know, ask or listen": r"\b(?:says|tells|told|asks|listens|knows|know nothing)\b",
    "return whether, not say whether": r"\b(?:[Ss]ay|[Tt]ell|[Aa]sk) (?:whether|if|how|which|who|where|what)\b",
    "one concept, one term: package": r"\brooms?\b",
    "nobody and somebody are not parts of a program": r"\b(?:[Nn]obody|[Ss]omebody)\b",
    "phrases that readers stumble over": (
        r"\b(?:none of a|one and the same|as far as it|learns on|beforehand known|for the like|as good as)\b"
    ),
}


def _prose(path: pathlib.Path) -> list[tuple[int, str]]:
    """Return lines of prose with their numbers: comments and strings of Python, everything outside code of Markdown."""
    text = path.read_text()
    if path.suffix == ".md":
        fenced = re.sub(r"```.*?```", lambda m: "\n" * m.group().count("\n"), text, flags=re.DOTALL)
        return list(enumerate(re.sub(r"`[^`\n]*`", "``", fenced).splitlines(), 1))
    found: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)):
            prose = re.sub(r"`[^`\n]*`", "``", token.string)
            found += [(token.start[0] + i, line) for i, line in enumerate(prose.splitlines()) if ">>>" not in line]
    return found


def offences(path: pathlib.Path) -> list[str]:
    """Return `line: rule: text` of every offence."""
    prose = _prose(path)
    return [
        f"{number}: {rule}: {line.strip()}"
        for number, line in prose
        for rule, pattern in RULES.items()
        if re.search(pattern, line)
    ]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_words_are_plain(path: pathlib.Path) -> None:
    assert offences(path) == []


@pytest.mark.parametrize(
    ("sentence", "rule"),
    [
        ("One logit a candidate.", "per row, not a row"),
        ("Return what the layer read.", "name the noun, not a what-clause"),
        ("Every task but one.", "except, not but"),
        ("The labels right in front of one.", "before or preceding, not in front"),
    ],
)
def test_rules_find_their_examples(sentence: str, rule: str) -> None:
    assert re.search(RULES[rule], sentence)
