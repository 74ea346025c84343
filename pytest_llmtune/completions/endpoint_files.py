"""Read lists of endpoints and their keys."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytest_llmtune._dataclass import replace
from pytest_llmtune._util.files import read_regular
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import did_you_mean
from pytest_llmtune._util.yaml import load
from pytest_llmtune.completions.endpoints import LOCAL, OPENAI_URL, Endpoint, Trust, check_address
from pytest_llmtune.errors import LLMTuneError, MissingKeyError, SuiteError, problem_of
from pytest_llmtune.money.prices import Price, parse_price
from pytest_llmtune.redaction.keys import KeySources, Secret, lines_of, secret, shown

FIELDS = {
    "name": "a name for messages",
    "kind": "openai or azure",
    "base_url": "its address",
    "api_key": "a key, or a list of keys",
    "api_key_env": "the name of an environment variable, or of an entry of .env, that holds the key",
    "api_key_file": "a file inside the project with one key per line",
    "api_version": "azure only",
    "models": "a list of models, or a mapping of the suite's name to the server's",
    "prices": "by model, USD per 1M tokens",
    "max_n": "the largest n it accepts",
    "requests_per_minute": "per key",
    "tokens_per_minute": "per key",
    "concurrency": "requests in flight per key",
}
_ALIASES = {"api_base": "base_url", "api_type": "kind", "model": "models", "azure_endpoint": "base_url"}
_NUMBERS = ("max_n", "requests_per_minute", "tokens_per_minute", "concurrency")
_MAX_BYTES = 1_000_000
_AZURE_VERSION = "2024-10-21"
_LIST_NAME = lazy_regex(r"\w*(?:OAI|OPENAI|LLM|ENDPOINT)\w*", re.IGNORECASE)


def endpoints_of(
    value: Any = None,
    *,
    base_url: str | None = None,
    root: Path | None = None,
    environ: Mapping[str, str] | None = None,
    trust: Trust | None = None,
    untrusted: bool = False,
) -> tuple[Endpoint, ...]:
    """The endpoints to ask, in order of failover.

    Args:
        value: a list of mappings; or a text: JSON, a YAML or JSON file, a directory with ``key_openai.txt``,
            ``key_aoai.txt`` and ``base_aoai.txt``, or the name of an environment variable that holds one of these.
            None: one endpoint at ``base_url`` (else OpenAI's, or Azure's if only its variables are set).
        root: the project's directory, with ``.env``, and the base of relative paths.
        environ: instead of the process's environment.
        trust: allowed addresses in ``.env``, and for ``untrusted`` of all endpoints.
        untrusted: ``value`` or ``base_url`` is from a YAML suite.

    Raises:
        SuiteError: a field is unknown or unusable, a file or a key is missing, an address is not trusted; keys are
            never in the message.
    """
    sources = KeySources.of(root or Path.cwd(), os.environ if environ is None else environ)
    found = problem_of(partial(_read, value, base_url, sources, trust or Trust(), untrusted=untrusted))
    if isinstance(found, LLMTuneError):
        del value, environ
        raise found
    return found


def _read(
    value: Any, base_url: str | None, sources: KeySources, trust: Trust, *, untrusted: bool
) -> tuple[Endpoint, ...]:
    if value is None or value in ("", []):
        found = _default(base_url, sources, trust)
    else:
        entries, where = value, "endpoints"
        if isinstance(value, str):
            entries, where, untrusted = _entries(value, sources, untrusted=untrusted)
        found = _listed(entries, where, sources, trust)
    for endpoint in found if untrusted else ():
        trust.check(endpoint.base_url, "endpoints" if value else "base_url")
    return found


def _listed(entries: Any, where: str, sources: KeySources, trust: Trust) -> tuple[Endpoint, ...]:
    if isinstance(entries, Mapping):
        entries = [entries]
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        got = "a text" if isinstance(entries, str) else f"{entries!r:.80}"
        raise SuiteError(f"{where}: endpoints are {got}; valid: a list of mappings with {', '.join(FIELDS)}")
    return tuple(
        item if isinstance(item, Endpoint) else _endpoint(item, f"{where}[{number}]", sources, trust)
        for number, item in enumerate(entries)
    )


def _default(base_url: str | None, sources: KeySources, trust: Trust) -> tuple[Endpoint, ...]:
    """The endpoint given by the usual environment variables."""
    address = base_url or sources.value("OPENAI_BASE_URL")
    keys = sources.keys_in("OPENAI_API_KEY")
    azure, azure_keys = sources.value("AZURE_OPENAI_ENDPOINT"), sources.keys_in("AZURE_OPENAI_API_KEY")
    if address is None and not keys and azure and azure_keys:
        _check_dotenv("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", sources, trust)
        check_address(azure, "AZURE_OPENAI_ENDPOINT")
        version = sources.value("OPENAI_API_VERSION") or _AZURE_VERSION
        return (Endpoint(azure, azure_keys, "azure", api_version=version),)
    if base_url is None:
        _check_dotenv("OPENAI_BASE_URL", "OPENAI_API_KEY", sources, trust)
    address = address or OPENAI_URL
    check_address(address, "base_url")
    if not keys and urlsplit(address).hostname in LOCAL:
        keys = (Secret("none", "no key"),)
    if not keys:
        raise MissingKeyError(
            f"there is no API key for {address}; set OPENAI_API_KEY, put it into {sources.root / '.env'}, "
            "or list endpoints with their keys (llmtune_endpoints)"
        )
    return (Endpoint(address, keys),)


def _check_dotenv(address: str, key: str, sources: KeySources, trust: Trust) -> None:
    """Check that a ``.env`` from a checkout does not send another key than its own to its own address.

    Args:
        key: the variable with the key; empty if the key is not from a variable.
    """
    if sources.only_in_dotenv(address) and not sources.only_in_dotenv(key):
        trust.check(sources.value(address) or "", f"{sources.root / '.env'}: {address}")


def _entries(text: str, sources: KeySources, *, untrusted: bool) -> tuple[Any, str, bool]:
    """(data, location, whether it may be untrusted) of a list given as text."""
    text = text.strip()
    if text.startswith(("[", "{")):
        return _parsed(text, "endpoints"), "endpoints", untrusted
    if (found := _from_files(text, sources, untrusted=untrusted)) is not None:
        return *found, untrusted
    usable = _LIST_NAME.fullmatch(text) or not untrusted  # an untrusted suite must not read other variables
    if usable and (content := (sources.value(text) or "").strip()):
        untrusted = sources.only_in_dotenv(text)
        if content.startswith(("[", "{")):
            return _parsed(content, text), text, untrusted
        if (found := _from_files(content, sources, untrusted=untrusted)) is not None:
            return *found, untrusted
        raise SuiteError(f"endpoints: the environment variable {text} is neither JSON nor the name of a file")
    raise SuiteError(
        f"endpoints are {shown(text)}; valid: a YAML or JSON file, JSON text, a directory with key_openai.txt or "
        "key_aoai.txt, or the name of an environment variable that holds one of these"
    )


def _from_files(name: str, sources: KeySources, *, untrusted: bool) -> tuple[Any, str] | None:
    """(data, path) of a file or directory; None if it does not exist."""
    path = sources.root / name
    try:
        if untrusted and path.exists() and not path.resolve().is_relative_to(sources.root.resolve()):
            raise SuiteError(f"endpoints: {name!r:.100} is outside the project {sources.root}")
        if path.is_dir():
            return _from_key_files(path, sources), str(path)
        if not path.is_file():
            return None
        return _parsed(read_regular(path, _MAX_BYTES).decode("utf-8-sig"), str(path)), str(path)
    except (OSError, ValueError) as error:  # no permission, name too long, NUL, not UTF-8
        why = getattr(error, "strerror", None) or type(error).__name__
        raise SuiteError(f"endpoints: {name!r:.100} cannot be read: {why}") from None


def _parsed(text: str, where: str) -> Any:
    """Parse JSON or YAML; messages never quote it, because it may contain keys."""
    try:
        return json.loads(text) if text.lstrip().startswith(("[", "{")) else load(text)
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise SuiteError(f"{where}: {reason}")


def _from_key_files(directory: Path, sources: KeySources) -> list[Endpoint]:
    """OpenAI with all keys of ``key_openai.txt``, then each line of ``base_aoai.txt`` with its key in ``key_aoai.txt``."""
    local = replace(sources, root=directory)
    found = []
    if (directory / "key_openai.txt").is_file():
        found.append(Endpoint(OPENAI_URL, local.from_file("key_openai.txt", str(directory))))
    if (directory / "key_aoai.txt").is_file():
        keys = local.from_file("key_aoai.txt", str(directory))
        bases = lines_of(directory / "base_aoai.txt") if (directory / "base_aoai.txt").is_file() else []
        if len(bases) != len(keys):
            raise SuiteError(
                f"{directory}: key_aoai.txt has {len(keys)} keys, and base_aoai.txt has {len(bases)} addresses; "
                "each key needs the address on the same line"
            )
        for number, base in enumerate(bases, 1):  # the file may contain keys by mistake
            check_address(base, f"{directory / 'base_aoai.txt'} line {number}", quoted=False)
        found += [
            Endpoint(base, (key,), "azure", api_version=_AZURE_VERSION) for base, key in zip(bases, keys, strict=True)
        ]
    if not found:
        raise SuiteError(f"{directory} has no key_openai.txt and no key_aoai.txt")
    return found


def _endpoint(item: Any, where: str, sources: KeySources, trust: Trust) -> Endpoint:
    """One entry of a list."""
    if not isinstance(item, Mapping):
        raise SuiteError(f"{where} is {type(item).__name__}; valid: a mapping with {', '.join(FIELDS)}")
    fields = {_ALIASES.get(str(name), str(name)): value for name, value in item.items() if value is not None}
    for name in fields:
        if name not in FIELDS:
            close = did_you_mean(name, [*FIELDS, *_ALIASES])
            raise SuiteError(f"{where} has the unknown field {shown(name)}{close}; valid: {', '.join(FIELDS)}")
    kind = str(fields.get("kind", "openai")).lower().replace("open_ai", "openai")
    if kind not in ("openai", "azure"):
        raise SuiteError(f"{where}: kind is {shown(kind)}; valid: openai, azure")
    address = str(fields.get("base_url") or sources.value("OPENAI_BASE_URL") or ("" if kind == "azure" else OPENAI_URL))
    check_address(address, where)
    usual = "AZURE_OPENAI_API_KEY" if kind == "azure" else "OPENAI_API_KEY"
    if not fields.get("base_url"):
        has_key = "api_key" in fields or "api_key_file" in fields
        _check_dotenv("OPENAI_BASE_URL", "" if has_key else str(fields.get("api_key_env", usual)), sources, trust)
    version = str(fields.get("api_version") or sources.value("OPENAI_API_VERSION") or _AZURE_VERSION)
    return Endpoint(
        address,
        _keys(fields, usual, address, where, sources),
        "azure" if kind == "azure" else "openai",
        name=str(fields.get("name", "")),
        models=_models(fields.get("models"), where),
        prices=_prices(fields.get("prices"), where),
        api_version=version if kind == "azure" else None,
        **{name: _number(name, fields[name], where) for name in _NUMBERS if name in fields},
    )


def _keys(fields: Mapping[str, Any], usual: str, address: str, where: str, sources: KeySources) -> tuple[Secret, ...]:
    """The keys of an entry: given, named, or from the usual variable."""
    if (value := fields.get("api_key")) is not None:
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not listed or not all(isinstance(key, str) and key for key in listed):
            raise SuiteError(f"{where}: api_key must be a string or a list of strings")
        return tuple(secret(key, f"{where}.api_key", where) for key in listed)
    if (variable := fields.get("api_key_env")) is not None:
        return sources.from_variable(str(variable), where)
    if (file := fields.get("api_key_file")) is not None:
        return sources.from_file(str(file), where)
    if urlsplit(address).hostname in LOCAL and not sources.keys_in(usual):
        return (Secret("none", "no key"),)
    return sources.from_variable(usual, where)


def _models(value: Any, where: str) -> dict[str, str] | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = [value]
    named = {str(one): one for one in value} if isinstance(value, list) else value
    models = {str(ours): str(theirs) for ours, theirs in named.items()} if isinstance(named, Mapping) else {}
    if not models:
        raise SuiteError(f"{where}: models is {value!r:.100}; valid: {FIELDS['models']}")
    return models


def _prices(value: Any, where: str) -> dict[str, Price]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SuiteError(f"{where}: prices is {value!r:.100}; valid: {FIELDS['prices']}")
    return {str(model): parse_price(str(model), price, f"{where}.prices") for model, price in value.items()}


def _number(name: str, value: Any, where: str) -> Any:
    integer = name in ("max_n", "concurrency")
    if isinstance(value, bool) or not isinstance(value, int if integer else (int, float)) or not 1 <= value < 1e12:
        raise SuiteError(f"{where}: {name} is {value!r:.60}; valid: a {'whole ' if integer else ''}number from 1")
    return value
