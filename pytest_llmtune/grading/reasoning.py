"""Separate a model's reasoning from its answer before grading.

Reasoning may be part of the text: ``<think>...</think>`` if the server has no reasoning parser, only ``</think>`` if the
chat template opened it, ``[THINK]``, gpt-oss' harmony channels, and so on. Reasoning is not part of the answer, and if it
is never closed, there is no answer.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.jsonhash import is_json
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import InvalidError
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite.keys import reasoning

_NAMES = (
    r"think(?:ing)?|thoughts?|reason(?:ing)?|seed:think|analysis|reflection|scratch_?pad|rationale|monologue|"
    r"(?:inner|internal)_?(?:thoughts?|thinking|monologue|reasoning)|(?:ant|mm)[:_]?thinking|chain_of_thought|cot"
)
_TAG = rf"<\s*\|?(?P<{{name}}>{_NAMES})(?:\s[^<>]*|\|)?>"
_OPEN = (
    _TAG.format(name="tag"),
    r"<details\s+type=[\"']reasoning[\"'][^<>]*>",  # Open WebUI
    r"\[(?:BEGIN_)?THINK(?:ING)?\]",  # Magistral
    r"◁think▷",  # Kimi-VL
    r"<\|?begin_of_thought\|?>|<\|begin▁of▁thought\|>",  # OpenThinker
    r"<\|START_THINKING\|>",  # Cohere
    r"<\|channel>(?:thought|analysis)\b",  # Gemma
    r"<unused94>(?:thought)?",  # MedGemma
)
_CLOSE = (
    rf"<\s*\|?\s*/\s*(?:{_NAMES})\s*\|?>",
    r"</details>",
    r"\[(?:/|END_)THINK(?:ING)?\]",
    r"◁/think▷",
    r"<\|?end_of_thought\|?>|<\|end▁of▁thought\|>",
    r"<\|END_THINKING\|>",
    r"<channel\|>",
    r"<unused95>",
)
_FRAME = lazy_regex(  # what some models put around the answer proper
    r"<\|?(?:begin|end)_of_solution\|?>|<\|(?:START|END)_RESPONSE\|>|<\|(?:im_end|endoftext|eot_id|end_of_turn|return)\|>"
)
_CHANNEL = lazy_regex(
    r"(?:<\|start\|>\s*\w+[^<]*)?<\|channel\|>\s*(?P<name>\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
)
_MESSAGE_END = lazy_regex(r"<\|(?:end|return|call|start|channel)\|>")
_PLAIN_CHANNELS = lazy_regex(
    r"\s*(?:assistant\s*)?analysis(?=\S)(?P<thought>.*)assistant\s*final(?P<answer>.*)", re.DOTALL
)
"""Harmony without special tokens, which the server dropped: ``analysisWe need ... assistantfinalThe answer``."""
_LONGEST_LINE = 2_000  # characters
_FENCE = lazy_regex(r"^[ \t]*```", re.MULTILINE)
_ANALYSIS = lazy_regex(r"\s*(?:assistant)?analysis")


@dataclass(frozen=True)
class Marks:
    """The marks that open and close reasoning.

    Args:
        open, close: alternative regular expressions.
        channels: whether to parse harmony's channels.
    """

    open: tuple[str, ...] = _OPEN
    close: tuple[str, ...] = _CLOSE
    channels: bool = True
    key: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    """As declared; empty for the built-in marks."""

    def answer(self, text: str) -> str:
        """The text without reasoning; empty if reasoning is not closed."""
        plain = "<" not in text and "[" not in text and "◁" not in text and not _ANALYSIS.match(text)
        if (self.channels and plain) or (text.lstrip()[:1] in ("{", '"') and is_json(text)):
            # a complete JSON document has no reasoning, even if its strings have marks
            return text
        parts = list(self.parts(text))
        if parts == [(False, text)]:
            return text
        return "".join(part for is_thought, part in parts if not is_thought).strip()

    def split(self, text: str) -> tuple[str, str]:
        """The reasoning (may be empty) and the answer."""
        answer = self.answer(text)
        if answer is text:
            return "", text
        return "\n\n".join(part.strip() for is_thought, part in self.parts(text) if is_thought and part.strip()), answer

    def parts(self, text: str) -> Iterator[tuple[bool, str]]:
        """(whether it is reasoning, text), in order; together the whole response without marks."""
        if not self.channels:
            yield from self._tagged(text)
        elif "<|message|>" in text and _CHANNEL.search(text):
            yield from self._harmony(text)
        elif (plain := _PLAIN_CHANNELS.fullmatch(text)) is not None:
            yield True, plain["thought"]
            yield False, plain["answer"]
        else:
            for is_thought, part in self._tagged(text):
                yield is_thought, part if is_thought else _FRAME.sub("", part)

    def _harmony(self, text: str) -> Iterator[tuple[bool, str]]:
        """Only the channel ``final`` is for the user; what stands before the first mark was begun in the template."""
        found = list(_CHANNEL.finditer(text))
        if text[: found[0].start()].strip():
            yield True, _MESSAGE_END.sub("", text[: found[0].start()])
        for index, match in enumerate(found):
            end = found[index + 1].start() if index + 1 < len(found) else len(text)
            message = _MESSAGE_END.split(text[match.end() : end], maxsplit=1)[0]
            if match["name"] == "final":
                yield from self._tagged(message)
            else:
                yield True, message

    def _tagged(self, text: str) -> Iterator[tuple[bool, str]]:
        """A mark in quotation marks, back-quotes or code is talk about it; a close without an open ends a thought that the
        template has begun, so that all before it is thought."""
        marks = [match for match in self._mark.finditer(text) if not _is_quoted(text, match)]
        if not marks:
            yield False, text
            return
        found: list[tuple[bool, str]] = []
        position, thinking, begun = 0, False, 0
        fences = [match.start() for match in _FENCE.finditer(text)]
        for match in marks:
            before = text[position : match.start()]
            if not thinking and bisect(fences, match.start() - 1) % 2 and _line_before(text, match).strip():
                continue
            if match["open"]:
                if thinking:
                    continue  # a mark inside a thought
                found.append((False, before))
                thinking = True
            elif thinking:
                found.append((True, before))
                thinking = False
            elif not self.channels or match[0].lower() != "</details>":  # which ends other things too
                found.append((True, before))
                begun = len(found)
            else:
                continue
            position = match.end()
        if begun:
            yield True, "".join(part for _, part in found[:begun])
        yield from found[begun:]
        yield thinking, text[position:]

    @cached_property
    def _mark(self) -> re.Pattern[str]:
        return re.compile(f"(?P<open>{'|'.join(self.open)})|(?P<close>{'|'.join(self.close)})", re.IGNORECASE)


def _is_quoted(text: str, match: re.Match[str]) -> bool:
    """Whether a mark is quoted, in back-quotes or quotation marks."""
    before, after = text[max(0, match.start() - 1) : match.start()], text[match.end() : match.end() + 1]
    fence = text[max(0, match.start() - 3) : match.start()] == "```"
    if not fence and before and before in "\"'`“‘「" and after and after in "\"'`”’」":
        return True
    return (
        _line_before(text, match).replace("```", "").count("`") % 2 == 1
        and "`" in text[match.end() : match.end() + _LONGEST_LINE].split("\n", 1)[0]
    )


def _line_before(text: str, match: re.Match[str]) -> str:
    """What stands before a mark on its line, of which no more is looked at than people write."""
    return text[max(0, match.start() - _LONGEST_LINE) : match.start()].rpartition("\n")[2]


BUILT_IN = Marks()
_OFF = Marks((r"(?!)",), (r"(?!)",), channels=False, key=(("", ""),))


def marks_of(spec: Any) -> Marks:
    """Parse the suite's key ``reasoning``: true, false, ``{"open": ..., "close": ...}`` or a list of these; else SuiteError."""
    try:
        declared = reasoning(spec)
    except InvalidError as error:
        raise SuiteError(f"reasoning {error}") from None
    if isinstance(declared, bool):
        return BUILT_IN if declared else _OFF
    pairs = [declared] if isinstance(declared, Mapping) else declared
    return marks_by_key(tuple((pair["open"], pair["close"]) for pair in pairs))


def marks_by_key(key: tuple[tuple[str, str], ...]) -> Marks:
    """The marks with this key."""
    if not key or key == _OFF.key:
        return _OFF if key else BUILT_IN
    opens, closes = (tuple(re.escape(pair[side]) for pair in key) for side in (0, 1))
    return Marks(opens, closes, channels=False, key=key)
