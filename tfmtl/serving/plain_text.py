"""Text of unknown origin on a terminal and in Markdown: without control characters and without markup."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_JOINERS = "\u200c\u200d"  # parts of words and of emoji, without a direction or a command
_HIDDEN = ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")
_MARKUP = re.compile(r"([\\`|*<>])|(\])(?=[(\[:])|^(?=[#+=~-])")


def visible(text: str) -> str:
    r"""Return a text with escape sequences in place of control characters, such as those that move a terminal's cursor.

    The sequences are those of JSON.

    Example:
        >>> print(visible("a\x1b[2Jb\u202e"))
        a\u001b[2Jb\u202e
    """
    return "".join(c if c in _JOINERS or unicodedata.category(c) not in _HIDDEN else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def inline(value: Any) -> str:
    r"""Return a value as one line of Markdown that shows it and no markup, also in a cell of a table.

    Example:
        >>> print(inline("a | `b`\n# <c> [d](e) user_id"))
        a \| \`b\` # \<c\> [d\](e) user_id
    """
    text = visible(" ".join(str(value).split()))
    return _MARKUP.sub(lambda found: f"\\{found[1] or found[2] or ''}", text)


def code(value: Any) -> str:
    r"""Return a value as a code span of Markdown, also in a cell of a table.

    Example:
        >>> print(code("a`|b"))
        `a'\|b`
    """
    text = visible(" ".join(str(value).split())).replace("`", "'").replace("|", "\\|")
    return f"`{text}`"
