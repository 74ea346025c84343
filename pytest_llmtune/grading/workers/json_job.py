"""Job of a worker: validate a document against a JSON Schema."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

_LONGEST = 200


def prepare() -> None:
    import jsonschema  # noqa: F401 - slow, so before the first request


def answer(request: dict[str, Any]) -> dict[str, Any]:
    from jsonschema.exceptions import best_match

    error = best_match(_validator(json.dumps(request["schema"])).iter_errors(request["value"]))
    return {"error": None if error is None else f"{error.json_path}: {error.message}"[:_LONGEST]}


@lru_cache(maxsize=100)
def _validator(schema: str) -> Any:
    from jsonschema.validators import Draft202012Validator, validator_for
    from jsonschema_specifications import REGISTRY

    loaded = json.loads(schema)  # a registry of one's own fetches nothing
    return validator_for(loaded, default=Draft202012Validator)(loaded, registry=REGISTRY)
