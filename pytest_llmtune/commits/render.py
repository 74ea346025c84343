"""Render changes and histories as terminal text, Markdown, JSON, CSV and HTML."""

from __future__ import annotations

import csv
import io
import json
import re
from html import escape
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.serialize import to_plain
from pytest_llmtune._util.text import COMMENT_MARK, clean, dollars, lifeless, number, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from decimal import Decimal

    from pytest_llmtune.commits.compare import SuiteChange
    from pytest_llmtune.commits.history import Entry
    from pytest_llmtune.guard.lockfile import Measured


_LONGEST = 60_000
"""Maximum length of a comment in characters: GitHub's limit is 65,536, GitLab's higher."""
_NAMED = 10
_HEADER = ("suite", "score before", "score now", "flips", "USD per 1,000 before", "USD per 1,000 now", "what changed")

Row = tuple[str, ...]


def table_of(changes: Sequence[SuiteChange]) -> list[Row]:
    """One table row per suite, for ``_HEADER``."""
    rows: list[Row] = []
    for change in changes:
        scores = _score(change.score("before")), _score(change.score("now"))
        costs = _dollars(change.cost("before")), _dollars(change.cost("now"))
        rows.append((change.name, *scores, _flips(change), *costs, _what(change)))
    return rows


def _score(figure: Measured | None) -> str:
    if figure is None:
        return "-"
    sure = "" if figure.low is None or figure.high is None else f" ({number(figure.low)} to {number(figure.high)})"
    return number(figure.value) + sure


def _dollars(amount: Decimal | None) -> str:
    return "-" if amount is None else dollars(amount)


def _flips(change: SuiteChange) -> str:
    if change.rows is None:
        return "-"
    if not change.lost and not change.gained:
        return "none"
    chance = "" if change.p_value is None else f", p = {number(change.p_value)}"
    return f"{len(change.lost)} lost, {len(change.gained)} gained{chance}"


def _what(change: SuiteChange) -> str:
    if change.status != "changed":
        return {"added": "new suite", "removed": "suite removed", "same": "nothing"}[change.status]
    rows = change.rows
    parts = [name for name, _, _ in change.config]
    parts += ["prompt"] if change.prompt else []
    parts += ["prices"] if change.prices else []
    if rows is not None:
        counts = (("added", rows.added), ("removed", rows.removed), ("relabelled", rows.relabelled))
        parts += [f"{count} rows {word}" for word, count in counts if count]
    return ", ".join(parts) or "answers"


def _details(change: SuiteChange) -> list[tuple[str, list[str]]]:
    """(heading, lines) of details that do not fit into a table; model text is truncated to a line."""
    found = []
    if change.config:
        found.append(("configuration", [f"{name}: {_value(old)} -> {_value(new)}" for name, old, new in change.config]))
    if prices := change.prices:
        lines = [f"{model} {rate}: {_value(old)} -> {_value(new)} USD per 1M" for model, rate, old, new in prices]
        found.append(("prices", lines))
    for word, examples in (("lost", change.lost), ("gained", change.gained)):
        if examples:
            more = [f"and {len(examples) - _NAMED} more"] if len(examples) > _NAMED else []
            rows = [
                f"row {one.index} ({one.id[:8]}): now {one_line(one.voted_answer or 'no answer', 120)}"
                for one in examples[:_NAMED]
            ]
            found.append((f"{word} ({len(examples)})", rows + more))
    return found


def _value(value: Any) -> str:
    return "-" if value is None else one_line(value if isinstance(value, str) else str(value), 200)


def as_text(changes: Sequence[SuiteChange], base: str, head: str) -> str:
    """For a terminal."""
    lines = [f"{base} -> {head}", "", *_columns([_HEADER, *table_of(changes)])]
    for change in changes:
        blocks = _details(change)
        if change.prompt:
            blocks.insert(0, ("prompt", _prompt(change, _WORD_DIFF, str).splitlines()))
        if blocks:
            lines += ["", change.name]
            for heading, details in blocks:
                lines += [f"  {heading}:", *(f"    {line}" for line in details)]
    return clean("\n".join(lines)) + "\n"


_WORD_DIFF = {"=": "{}", "-": "[-{}-]", "+": "{{+{}+}}"}
"""As ``git diff --word-diff`` marks words."""
_MARKUP_DIFF = {"=": "{}", "-": "<del>{}</del>", "+": "<ins>{}</ins>"}


def _prompt(change: SuiteChange, marks: Mapping[str, str], escaped: Callable[[str], str]) -> str:
    return "".join(marks[tag].format(escaped(text)) for tag, text in change.prompt)


def _columns(rows: Sequence[Row]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def as_markdown(changes: Sequence[SuiteChange], base: str, head: str) -> str:
    """A comment with one table and collapsed details, truncated with a remark if too long for GitHub."""
    shown = [change for change in changes if change.status != "same"]
    same = len(changes) - len(shown)
    if not shown:
        return f"{COMMENT_MARK}\nNo locked suite changed between {_md(base)} and {_md(head)}.\n"
    table = [f"| {' | '.join(map(_md, row))} |" for row in (_HEADER, *table_of(shown))]
    table.insert(1, "|" + "---|" * len(_HEADER))
    parts = [COMMENT_MARK, f"**Locked suites**, {_md(base)} → {_md(head)}", "", *table]
    if same:
        parts += ["", f"{same} more {'suite is' if same == 1 else 'suites are'} unchanged."]
    text = "\n".join(parts) + "\n"
    for change in shown:
        block = _md_details(change)
        if block and len(text) + len(block) > _LONGEST:
            return f"{text}\nThe rest is too long for a comment; see `llmtune compare`.\n"
        text += block
    return text


def _md_details(change: SuiteChange) -> str:
    blocks = [f"\n{heading}\n\n" + "".join(f"* {_md(line)}\n" for line in lines) for heading, lines in _details(change)]
    if change.prompt:
        diff = _prompt(change, _MARKUP_DIFF, _md).split("\n")
        blocks.insert(0, "\nprompt\n\n" + "".join(f"> {line}  \n" for line in diff))
    if not blocks:
        return ""
    return f"\n<details><summary>{_md(change.name)}</summary>\n{''.join(blocks)}\n</details>\n"


_SPECIAL = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_{}[]|~#!"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
)


def _md(text: str) -> str:
    """Escape text, so that no markup, mention or link in it becomes active."""
    plain = re.sub(r"(?m)^ +", lambda match: "\u00a0" * len(match[0]), clean(text))  # four blanks would begin code
    starts = re.sub(r"(?m)^(\u00a0*\d*)([-+=]|(?<=\d)[.)])", r"\1\\\2", plain.translate(_SPECIAL))
    return lifeless(starts)


def as_json(changes: Sequence[SuiteChange], base: str, head: str) -> str:
    """A JSON object: ``version``, ``base``, ``head`` and ``suites``; amounts in USD as strings."""
    suites = [
        {
            "suite": change.name,
            "path": change.path,
            "status": change.status,
            "metric": change.metric,
            "score": {"before": to_plain(change.score("before")), "now": to_plain(change.score("now"))},
            "usd_per_1000": {side: _plain_dollars(change.cost(side)) for side in ("before", "now")},
            "config": {name: {"before": old, "now": new} for name, old, new in change.config},
            "prompt": [list(pair) for pair in change.prompt],
            "prices": [
                [model, rate, _plain_dollars(old), _plain_dollars(new)] for model, rate, old, new in change.prices
            ],
            "rows": to_plain(change.rows),
            "lost": [example.id for example in change.lost],
            "gained": [example.id for example in change.gained],
            "p_value": change.p_value,
        }
        for change in changes
    ]
    data = {"version": 1, "base": base, "head": head, "suites": suites}
    return json.dumps(data, ensure_ascii=False, indent=1, default=str) + "\n"


def _plain_dollars(amount: Decimal | None) -> str | None:
    return None if amount is None else format(amount, "f")


def as_html(changes: Sequence[SuiteChange], base: str, head: str) -> str:
    """A complete page: the table, and collapsed details of each suite."""
    details = []
    for change in changes:
        blocks = [
            f"<h3>{escape(heading)}</h3><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
            for heading, lines in _details(change)
        ]
        if change.prompt:
            diff = _prompt(change, _MARKUP_DIFF, lambda text: escape(clean(text)))
            blocks.insert(0, f"<h3>prompt</h3><pre>{diff}</pre>")
        if blocks:
            details.append(f"<details><summary>{escape(change.name)}</summary>{''.join(blocks)}</details>")
    return _page(f"Locked suites, {base} to {head}", _html_table([_HEADER, *table_of(changes)]) + "".join(details))


def _html_table(rows: Sequence[Row]) -> str:
    head, *rest = rows
    cells: Callable[[str, Row], str] = lambda tag, row: "".join(f"<{tag}>{escape(clean(cell))}</{tag}>" for cell in row)  # noqa: E731
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rest)
    return f"<div class=scroll><table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table></div>"


def _page(title: str, body: str) -> str:
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color-scheme:light dark}"
        ".scroll{overflow-x:auto}table{border-collapse:collapse}td,th{padding:.3rem .6rem;border:1px solid #8886;text-align:left}"
        "pre{white-space:pre-wrap}ins{background:#2a24;text-decoration:none}del{background:#c334}"
    )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(clean(title))}</title><style>{style}</style><h1>{escape(clean(title))}</h1>{body}</html>\n"
    )


_TIMELINE = ("date", "commit", "suite", "model", "score", "USD per 1,000", "prompt", "search USD", "subject")


def history_table(entries: Sequence[Entry]) -> list[Row]:
    """One row of text for each state of a suite, below ``_TIMELINE``."""
    return [
        (
            entry.date[:10],
            entry.commit[:8],
            entry.suite,
            entry.model,
            _score(entry.score),
            _dollars(entry.cost),
            entry.prompt,
            "-" if entry.spent is None else f"{entry.spent:f}",
            one_line(entry.subject, 60),
        )
        for entry in entries
    ]


def history_csv(entries: Sequence[Entry]) -> str:
    """Comma-separated; a cell that a spreadsheet would run as a formula is kept a text."""
    out = io.StringIO()
    rows = [_TIMELINE, *history_table(entries)]
    cells = ([f"'{cell}" if cell[:1] in tuple("=+@\t\r") else cell for cell in row] for row in rows)
    csv.writer(out, lineterminator="\n").writerows(cells)
    return out.getvalue()


def history_text(entries: Sequence[Entry]) -> str:
    return clean("\n".join(_columns([_TIMELINE, *history_table(entries)]))) + "\n"


def history_html(entries: Sequence[Entry]) -> str:
    return _page("History of the locked suites", _html_table([_TIMELINE, *history_table(entries)]))
