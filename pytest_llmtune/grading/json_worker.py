"""Run as a script in a process of its own: holds JSON values against a JSON schema, one JSON line each.

``{"schema": ..., "value": ...}`` in, ``{"error": null}`` or ``{"error": "$.a: ..."}`` out. A schema's regular
expressions can take for ever on a hostile value; the caller holds the time limit and kills this process past it.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from typing import Any

_LONGEST = 200


def main() -> None:
    sys.path[:] = json.loads(sys.argv[1])
    import jsonschema  # noqa: F401 - slow, so before the first request

    out = sys.stdout
    sys.stdout = sys.stderr
    print("{}", file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps({"error": error_of(json.dumps(request["schema"]), request["value"])}), file=out, flush=True)


def error_of(schema: str, value: Any) -> str | None:
    from jsonschema.exceptions import best_match

    error = best_match(_validator(schema).iter_errors(value))
    return None if error is None else f"{error.json_path}: {error.message}"[:_LONGEST]


@lru_cache(maxsize=100)
def _validator(schema: str) -> Any:
    from jsonschema.validators import Draft202012Validator, validator_for

    loaded = json.loads(schema)
    return validator_for(loaded, default=Draft202012Validator)(loaded)


if __name__ == "__main__":
    main()
