"""Text helpers for messages and reports: counts, dollars, quoting, did-you-mean."""

from __future__ import annotations

import difflib
import json
import re
from decimal import Decimal, InvalidOperation
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


# C0 and C1 controls, DEL, bidirectional marks, invisible tags, line separators, lone surrogates
_HARMFUL = lazy_regex(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
# commands that CI systems execute anywhere in a log line: ##[error], ##vso[...], ##teamcity[...]
_CI_COMMAND = lazy_regex(r"##(?=[a-z]*\[)")

COMMENT_MARK = "<!-- pytest-llmtune -->"
"""The first line of a comment on a pull request, by which a workflow finds it again."""


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clean(text: str) -> str:
    """Text with terminal controls and CI commands escaped; tabs and line feeds stay."""
    return _CI_COMMAND.sub(r"#\\#", _HARMFUL.sub(_escaped, text))


_ALIVE = lazy_regex(r"@|#(?=\d)|\bwww(?=\.)|(?<=\w):(?=//)", re.IGNORECASE)
"""What GitHub and GitLab turn into mentions and links after parsing Markdown, so that a backslash does not prevent it."""


def lifeless(text: str) -> str:
    """Text whose mentions, references and addresses do not become links, because of an invisible space inside each."""
    return _ALIVE.sub(lambda match: f"{match[0]}\u200b", text)


def one_line(text: str, limit: int = 1_000) -> str:
    """The first ``limit`` characters of a text, cleaned, with single spaces for white space.

    Safe at the start of a line: a leading ``::``, which GitHub treats as a command, is escaped.
    """
    line = clean(" ".join(text[: 2 * limit].split()))[:limit]
    return f"\\{line}" if line.startswith("::") else line


def cell_cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` terminal cells (a Chinese character takes two), truncated with ``...``."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    cut = set_cell_size(text, max(0, width - 3)).rstrip()
    word, blank, _ = cut.rpartition(" ")
    if blank and text[len(cut) : len(cut) + 1].strip() and cell_len(word) > width // 2:  # in the middle of a word
        cut = word.rstrip()
    return cut + "..."[: max(0, width)]


def cell_pad(text: str, width: int, *, right: bool = False) -> str:
    """``text`` padded with spaces to ``width`` terminal cells."""
    from rich.cells import cell_len

    blanks = " " * max(0, width - cell_len(text))
    return blanks + text if right else text + blanks


def columns(rows: Sequence[Sequence[str]], width: int, optional: Sequence[int] = ()) -> list[str]:
    """Rows as aligned lines: first column left-aligned and truncated to fit ``width``, figures right-aligned.

    The last column is text, and is left as it is.

    Args:
        optional: columns to leave out, in this order, until the others fit.
    """
    from rich.cells import cell_len

    visible = list(range(len(rows[0])))
    widths = [max(cell_len(row[column]) for row in rows) for column in visible]
    for column in optional:
        if sum(widths[each] for each in visible) + 2 * (len(visible) - 1) > width:
            visible.remove(column)
    rows = [[row[column] for column in visible] for row in rows]
    widths = [widths[column] for column in visible]
    rest = sum(widths[1:]) + 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(12, width - rest))
    return [
        "  ".join(
            [
                cell_pad(cell_cut(row[0], widths[0]), widths[0]),
                *(cell_pad(text, size, right=True) for text, size in zip(row[1:-1], widths[1:-1], strict=True)),
                row[-1],
            ]
        )
        for row in rows
    ]


def wrapped(text: str, width: int) -> str:
    """Lines that a terminal would break in the middle of a word, broken between words; commands are not broken."""
    lines = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        unbroken = len(line) <= width or "\x1b" in line or line.startswith(("next: ", "::"))
        lines += (
            [line]
            if unbroken
            else wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        )
    return "\n".join(lines)


def number(value: float | Decimal, digits: int = 4) -> str:
    """``value`` with at most ``digits`` decimals; tiny values keep two significant digits."""
    value = float(value)
    if value and abs(value) < 10**-digits:
        return f"{value:.2g}"
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def dollars(amount: float | Decimal, digits: int = 4) -> str:
    """USD with at least cents and at most ``digits`` significant digits: ``$0.0003125``, ``$12.40``."""
    value = Decimal(str(amount))
    if not value:
        return "$0"
    if value < 0:
        return f"-{dollars(-value, digits)}"
    decimals = max(2, digits - 1 - value.adjusted())
    integer, _, fraction = f"{value:.{decimals}f}".partition(".")
    return f"${integer}.{fraction.rstrip('0').ljust(2, '0')}"


def thousand(amount: float | Decimal) -> str:
    """A cost per instance as that of 1,000: ``$0.0486``."""
    return dollars(1000 * Decimal(str(amount)), 3)


def per_thousand(amount: float | Decimal) -> str:
    """A cost per instance in readable form: ``$0.0486 per 1,000 instances``."""
    return f"{thousand(amount)} per 1,000 instances"


def cost_change(before: Decimal | None, now: Decimal | None, unit: str = "") -> str:
    """Two costs per instance as those of 1,000: ``$0.0486 -> $0.0243 (-50 %)``; empty if one is unknown.

    Args:
        unit: follows the amounts where no heading names it.
    """
    if before is None or now is None:
        return ""
    share = f" ({100 * (float(now / before) - 1):+.3g} %)" if before else ""
    return f"{thousand(before)} -> {thousand(now)}{unit}{share}"


def apart(first: float | Decimal, second: float | Decimal, *, money: bool = False) -> tuple[str, str]:
    """Both numbers with as many digits as it takes to tell them apart."""
    show = dollars if money else number
    for digits in (4, 6, 9, 12):
        shown = show(first, digits), show(second, digits)
        if shown[0] != shown[1] or float(first) == float(second):
            break
    return shown


def interval(low: float, high: float) -> str:
    """``0.58 to 0.92``."""
    return f"{number(low, 3)} to {number(high, 3)}"


def counted(count: int, noun: str) -> str:
    """``1 example``, ``2 examples``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class InvalidError(SuiteError):
    """A value of a suite is invalid; ``path`` is its path in the declaration, such as ``("model", 1, "stop")``."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path

    def inside(self, *path: str | int) -> InvalidError:
        """The same error with ``path`` in front of its own."""
        return InvalidError(str(self), *path, *self.path)

    @property
    def spot(self) -> str:
        """The path for people: ``model[1].stop``."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return text.removeprefix(".")


def shown(value: object, width: int = 80) -> str:
    """A value for a message: its repr on one line, cut to ``width``."""
    text = repr(value)
    if not isinstance(value, str):  # someone else's repr may contain anything
        text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def listed(names: Iterable[object], most: int = 12) -> str:
    """Names for a message: ``'a', 'b' and 3 more``."""
    every = [shown(name, 40) for name in names]
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest if every else "none"


def did_you_mean(word: object, valid: Iterable[str], cutoff: float = 0.6) -> str:
    """`` (did you mean 'x'?)`` if one of the valid words is close, else the empty string."""
    words = list(valid)
    swapped = [name for name in words if name != word and sorted(name) == sorted(str(word))]  # two letters swapped
    close = swapped or difflib.get_close_matches(str(word), words, n=1, cutoff=cutoff)
    return f" (did you mean {close[0]!r}?)" if close else ""


def parse_number(raw: Any) -> Decimal | None:
    """A number exactly as written (0.1 is 0.1), or None; also where it has more than 400 digits or 1,000 decimals.

    So arithmetic with it does not overflow, and a message with it stays short.
    """
    if isinstance(raw, bool) or not isinstance(raw, (int, float, Decimal, str)):
        return None
    try:
        value = Decimal(str(raw).strip())
    except (InvalidOperation, ValueError):
        return None
    return value if value.is_finite() and value.adjusted() < 400 and value.as_tuple().exponent > -1000 else None  # type: ignore[operator]


def parse_dollars(raw: Any) -> Decimal | None:
    """An amount of USD from 0, exactly as written, or None."""
    value = parse_number(raw)
    return None if value is None or value < 0 else value


_UNSCOPED = lazy_regex(
    r"\bpytest --llm-(?:migrate=\S+(?: --llm-(?:tune|accept))?|tune|accept|live|record=(?:missing|all))"
    r"(?![\w=-])(?! (?:\S*::|\S*\.py|\"))"
)
"""A command without the test that it should run."""


def scoped(text: str, nodeid: str) -> str:
    """A message whose commands name this test; otherwise they would tune, record and pay for every suite."""
    return _UNSCOPED.sub(lambda match: f"{match[0]} {quoted(nodeid)}", text)


_PLAIN = dict.fromkeys(map(ord, "/._-:=+,@%"))


def quoted(nodeid: str) -> str:
    """Quote a node ID for POSIX shells and cmd.exe, as far as they agree."""
    return nodeid if (nodeid.translate(_PLAIN) + "0").isalnum() else '"' + nodeid.replace('"', '\\"') + '"'


def label(config: Mapping[str, Any]) -> str:
    """A configuration on one line: model first, start of the prompt last."""
    parts = [str(config["model"])] if "model" in config else []
    texts = ("model", "prompt", "messages")
    for name, value in config.items():
        if name in texts:
            continue
        quoted_text = isinstance(value, str) and not re.fullmatch(r"[\w./:-]+", value)  # so that blanks are seen
        parts.append(f"{name}={json.dumps(value, ensure_ascii=False) if quoted_text else value}")
    for name in texts[1:]:
        if name in config:  # line ends as `repr` shows those of messages
            line = str(config[name]).strip().replace("\r\n", "\n").replace("\n", "\\n")
            parts.append(f"{name}: {line}")
    return ", ".join(one_line(part, 120) for part in parts)
