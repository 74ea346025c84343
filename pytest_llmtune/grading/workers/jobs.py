"""Jobs of worker processes: functions of one request that a hostile text, pattern or schema could keep busy for ever.

Requests and answers are JSON data. A worker loads this file alone, which imports next to nothing.
"""

from __future__ import annotations

import json
import logging
import re
from functools import lru_cache
from typing import Any

_LONGEST_FAULT = 200  # characters
_RELATION = r"[<>\u2264\u2265]|\\[lg](?:eq?|t)(?![a-z])"


def grade(request: dict[str, Any]) -> dict[str, Any]:
    """What a built-in grader reads in long responses.

    ``{"kind": "numeric", "options": {...}, "responses": [...], "row": {...}}`` in, ``{"answers": [[key, text, correct], ...]}`` out.
    """
    grader = _grader(request["kind"], json.dumps(request["options"]))
    found = grader.read_answers(request["responses"], request["row"])
    return {"answers": [[each.key, each.text, each.correct] for each in found]}


@lru_cache(maxsize=20)
def _grader(kind: str, options: str) -> Any:
    from pytest_llmtune.grading.registry import built_in

    return built_in(kind)(**json.loads(options))


def search(request: dict[str, Any]) -> dict[str, Any]:
    """The first or last match of a suite's regular expression in each text.

    ``{"pattern": "...", "ignore_case": false, "last": true, "texts": [...]}`` in; out comes for each text the match and the
    answer in it (the group named ``answer``, else the first group, else the whole match), or null.
    """
    pattern = re.compile(request["pattern"], re.IGNORECASE if request["ignore_case"] else re.NOFLAG)
    return {"found": [_found(pattern, text, last=request["last"]) for text in request["texts"]]}


def _found(pattern: re.Pattern[str], text: str, *, last: bool) -> list[str] | None:
    match = pattern.search(text)
    for later in pattern.finditer(text) if last else ():
        match = later
    if match is None:
        return None
    group = "answer" if "answer" in pattern.groupindex else int(pattern.groups > 0)
    return [match[0], match[group] or ""]


def validate(request: dict[str, Any]) -> dict[str, Any]:
    """The main error of a document by a JSON Schema."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator(json.dumps(request["schema"])).iter_errors(request["value"]))
    return {"error": None if error is None else f"{error.json_path}: {error.message}"[:_LONGEST_FAULT]}


FORMATS = ("date", "email", "ipv4", "ipv6", "regex", "uuid")
"""Those of JSON Schema that jsonschema checks by itself. Others need packages, and must not depend on what is installed."""


@lru_cache(maxsize=100)
def _validator(schema: str) -> Any:
    from jsonschema import FormatChecker
    from jsonschema.validators import Draft202012Validator, validator_for
    from jsonschema_specifications import REGISTRY

    loaded = json.loads(schema)  # a registry of one's own fetches nothing
    kind = validator_for(loaded, default=Draft202012Validator)
    return kind(loaded, registry=REGISTRY, format_checker=FormatChecker(FORMATS))


def compare(request: dict[str, str]) -> dict[str, Any]:
    """Whether math-verify finds two answers equal, and what wrong answers that are equal have in common."""
    logging.disable()  # math-verify warns that its own limit is off, which is the point
    from math_verify import verify

    gold, parsed = _parsed(request["gold"]), _parsed(request["answer"])
    equal = bool(parsed) and verify(gold, parsed, timeout_seconds=None)
    if (
        not equal
        and parsed
        and bool(re.search(_RELATION, request["gold"])) < bool(re.search(_RELATION, request["answer"]))
    ):
        equal = verify(parsed, gold, timeout_seconds=None)  # it knows 3 < x < 5 as (3, 5), but only on this side
    return {"equal": bool(equal), "key": None if equal else _key(parsed)}


@lru_cache(maxsize=1000)
def _parsed(text: str) -> Any:
    from math_verify import LatexExtractionConfig, parse

    # only LaTeX: the extraction of plain expressions ends in an eval
    return parse(f"${text}$", [LatexExtractionConfig(boxed_match_priority=0)], parsing_timeout=None)


def _key(parsed: Any) -> str | None:
    """The expanded expression; None where there is none."""
    from sympy import Expr, expand, srepr

    found = next((item for item in parsed if isinstance(item, Expr)), None)
    return None if found is None else srepr(expand(found.doit()))
