"""Worker script: search responses for a suite's regular expression, which may never finish on a hostile text.

``{"pattern": "...", "ignore_case": false, "last": true, "texts": [...]}`` in; out comes for each text the whole match and the
answer in it (the group named ``answer``, else the first group, else the whole match), or null.
"""

from __future__ import annotations

import re
from typing import Any


def prepare() -> None:
    """Nothing to import."""


def answer(request: dict[str, Any]) -> dict[str, Any]:
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
