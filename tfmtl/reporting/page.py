"""A self-contained HTML page: escaped texts, tables that sort, pictures as SVG, light and dark colors."""

from __future__ import annotations

import dataclasses
import html
import math
import numbers
from collections.abc import Sequence
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --accent: #7cb0ff; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; }
h1 { font-size: 1.7rem; margin: .5rem 0; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1.05rem; margin: 1.2rem 0 .4rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem .9rem; margin: 1rem 0; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: left; vertical-align: top; }
th { cursor: pointer; white-space: nowrap; background: var(--soft); }
th[aria-sort=ascending]::after { content: " \\2191"; } th[aria-sort=descending]::after { content: " \\2193"; }
td.number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
figure { margin: .8rem 0; overflow-x: auto; } figure svg { height: auto; max-width: 100%; }
@media (max-width: 40rem) { figure svg { max-width: none; } }
details { margin: .4rem 0; } summary { cursor: pointer; color: var(--accent); }
figcaption, .note { font-size: .88rem; opacity: .8; }
"""
_SCRIPT = """
document.querySelectorAll("th").forEach(head => head.addEventListener("click", () => {
  const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent; };
  const order = (a, b) => {
    const [x, y] = [key(a), key(b)], [p, q] = [parseFloat(x), parseFloat(y)];
    if (isNaN(p) !== isNaN(q)) return isNaN(p) ? 1 : -1;
    const found = isNaN(p) ? x.localeCompare(y) : p - q;
    return up ? found : -found;
  };
  [...body.rows].sort(order).forEach(row => body.append(row));
}));
"""


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        title: plain text.
        body: HTML, from the functions of this module.
    """

    title: str
    body: str


def escaped(value: Any) -> str:
    """Return any value as text of a page; markup in it is shown, not interpreted."""
    return html.escape(str(value), quote=True)


def paragraph(text: str, note: bool = False) -> str:
    """Return a paragraph of plain text."""
    return f"<p{' class=note' if note else ''}>{escaped(text)}</p>"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table that sorts by a click on a head; numbers have four digits, missing values a dash.

    Args:
        columns: heads [c].
        rows: cells [r][c]: texts or numbers.

    Example:
        >>> "0.1235" in table(["task", "auc"], [["click", 0.12345]])
        True
    """
    head = "".join(f"<th scope=col>{escaped(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, numbers.Real) and math.isnan(value)):
        return "<td>\N{EN DASH}</td>"
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        shown = f"{int(value):,}" if isinstance(value, numbers.Integral) else f"{float(value):,.4g}"
        return f'<td class=number data-value="{float(value)!r}">{shown}</td>'
    return f"<td>{escaped(value)}</td>"


def folded(summary: str, body: str) -> str:
    """Return a part that a click on its summary, plain text, opens."""
    return f"<details><summary>{escaped(summary)}</summary>{body}</details>"


def figure(svg: str, caption: str) -> str:
    """Return a picture with its caption, which is also the text for readers who cannot see it."""
    named = svg.replace("<svg ", f'<svg role="img" aria-label="{escaped(caption)}" ', 1)
    return f"<figure>{named}<figcaption>{escaped(caption)}</figcaption></figure>"


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the page, which loads nothing from elsewhere.

    Args:
        title: plain text.
        lead: plain text under the title.
        sections: in their order.
    """
    links = "".join(f'<a href="#part{i}">{escaped(s.title)}</a>' for i, s in enumerate(sections))
    parts = "".join(
        f"<section id=part{i}><h2>{escaped(s.title)}</h2>{s.body}</section>" for i, s in enumerate(sections)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escaped(title)}</title><style>{_STYLE}</style></head><body>'
        f"<h1>{escaped(title)}</h1>{paragraph(lead)}<nav>{links}</nav>{parts}<script>{_SCRIPT}</script></body></html>\n"
    )
