"""The table of a suite's keys, and how their values are parsed; a parser raises ``InvalidError``."""

from __future__ import annotations

import math
import re
import statistics
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.functions import is_function_path, load_function
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import InvalidError, did_you_mean, parse_dollars, parse_number, shown
from pytest_llmtune.data.where import compile_condition
from pytest_llmtune.money.prices import PRICES_SCHEMA, parse_prices
from pytest_llmtune.suite.domains import (
    PARAMETERS,
    TEMPERATURE_OR_TOP_P,
    Choice,
    Constant,
    Range,
    parse_domain,
    read_params,
)

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ValueForm:
    """How one kind of value is parsed."""

    parse: Callable[[Any], Any]
    schema: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema for editors; may allow more than ``parse``, never less."""
    type: str = "Any"
    """Annotation for editors and type checkers; see ``suite/signature.py``."""


def _form(read: Callable[[Any], Any], valid: str, schema: Mapping[str, Any], annotation: str) -> ValueForm:
    """What ``read`` converts; it returns None for anything else."""

    def parse(raw: Any) -> Any:
        if (value := read(raw)) is None:
            raise InvalidError(f"is {shown(raw)}; valid: {valid}")
        return value

    return ValueForm(parse, schema, annotation)


def _real(raw: Any, high: float = math.inf) -> float | None:
    is_number = isinstance(raw, (int, float, Decimal)) and not isinstance(raw, bool) and math.isfinite(raw)
    return float(raw) if is_number and 0 <= raw <= high else None


def _whole(raw: Any) -> int | None:
    is_number = isinstance(raw, (int, float)) and not isinstance(raw, bool) and math.isfinite(raw)
    return int(raw) if is_number and raw == int(raw) else None


def _is_text(raw: Any) -> bool:
    return isinstance(raw, str) and bool(raw.strip())


def text(valid: str) -> ValueForm:
    """A non-blank string."""
    return _form(lambda raw: raw if _is_text(raw) else None, valid, {"type": "string", "minLength": 1}, "str")


def texts(valid: str) -> ValueForm:
    """A list of strings."""

    def read(raw: Any) -> tuple[str, ...] | None:
        return tuple(raw) if isinstance(raw, (list, tuple)) and raw and all(map(_is_text, raw)) else None

    schema = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
    return _form(read, valid, schema, "Sequence[str]")


def flag() -> ValueForm:
    """True or false."""
    return _form(lambda raw: raw if isinstance(raw, bool) else None, "true, false", {"type": "boolean"}, "bool")


MOST_IN_FLIGHT = 10_000
"""Limit for requests at once; more can only be a typo."""


def whole(low: int, what: str, *, high: int | None = None, also: int | None = None) -> ValueForm:
    """An integer from ``low``, up to ``high`` if given, or the value ``also``."""
    extra = "" if high is None else f" to {high:,}"
    extra += "" if also is None else f", or {also}"

    def read(raw: Any) -> int | None:
        value = _whole(raw)
        fits = value is not None and low <= value <= (math.inf if high is None else high)
        return value if fits or value == also else None

    bounded = {"type": "integer", "minimum": low} | ({} if high is None else {"maximum": high})
    schema = bounded if also is None else {"anyOf": [bounded, {"const": also}]}
    return _form(read, f"{what}, a whole number from {low}{extra}", schema, "int")


def rows_or_share(low: int) -> ValueForm:
    """A number of rows, or a fraction between 0 and 1."""

    def read(raw: Any) -> int | float | None:
        if isinstance(raw, float) and 0 < raw < 1:
            return raw
        value = _whole(raw)
        return value if value is not None and value >= low else None

    share = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    valid = f"rows, a whole number from {low}, or a share of them between 0 and 1"
    return _form(read, valid, {"anyOf": [{"type": "integer", "minimum": low}, share]}, "float")


def ratio(what: str, high: float = math.inf) -> ValueForm:
    """A number from 0, such as 0.1 for 10 %, up to ``high``."""
    upper, extra = ({}, "") if math.isinf(high) else ({"maximum": high}, f" to {high:g}")
    schema = {"type": "number", "minimum": 0} | upper
    return _form(lambda raw: _real(raw, high), f"{what}, a number from 0{extra}", schema, "float")


def positive(what: str) -> ValueForm:
    """A number above 0."""
    schema = {"type": "number", "exclusiveMinimum": 0}
    return _form(lambda raw: _real(raw) or None, f"{what}, a number above 0", schema, "float")


def dollars(what: str) -> ValueForm:
    """A positive amount in USD, exact."""
    schema = {"type": ["number", "string"], "exclusiveMinimum": 0}
    return _form(lambda raw: parse_dollars(raw) or None, f"{what}, above 0", schema, "Dollars")


def one_of(*words: str) -> ValueForm:
    """One of the given words."""

    def parse(raw: Any) -> str:
        if raw not in words or not isinstance(raw, str):
            raise InvalidError(f"is {shown(raw)}{did_you_mean(raw, words)}; valid: {', '.join(words)}")
        return raw

    listed = ", ".join(f'"{word}"' for word in words)
    return ValueForm(parse, {"enum": list(words)}, f"Literal[{listed}]")


def or_auto(form: ValueForm) -> ValueForm:
    """What ``form`` parses, or ``auto``, the default; an explicit None disables it (see ``Key.off``)."""
    schema = {"anyOf": [form.schema, {"const": "auto"}]}
    return ValueForm(lambda raw: raw if raw == "auto" else form.parse(raw), schema, f'{form.type} | Literal["auto"]')


def or_callable(form: ValueForm) -> ValueForm:
    """What ``form`` parses, or a function."""

    def parse(raw: Any) -> Any:
        if callable(raw):
            return raw
        try:
            return form.parse(raw)
        except InvalidError as problem:
            raise InvalidError(f"{problem}, or a function") from None

    return ValueForm(parse, form.schema)


def anything(schema: Mapping[str, Any]) -> ValueForm:
    """Any value, parsed later."""
    return ValueForm(lambda raw: raw, schema)


def _delimiter(raw: Any) -> str:
    """A character that can stand between the cells of a table."""
    if not isinstance(raw, str) or len(raw) != 1 or raw.isalnum() or raw in "\"'\r\n\\\0\ufeff":
        hint = ", in YAML in double quotes" if raw == "\\t" else ""
        raise InvalidError(f"is {shown(raw)}; valid: one character, such as ';', '|' or a tab ('\\t'{hint})")
    return raw


def condition(raw: Any) -> Any:
    """A function, or a valid expression."""
    if callable(raw):
        return raw
    if isinstance(raw, str) and raw.strip():
        compile_condition(raw)
        return raw
    example = "level >= 3 and topic == 'algebra'"
    raise InvalidError(f"is {shown(raw)}; valid: an expression such as {example!r}, or a function of the row")


def read_gates(raw: Any) -> Mapping[int, Any]:
    """Parse ``{3: 0.9}``: at least 0.9 for k = 3."""
    if not isinstance(raw, Mapping) or not raw:
        raise InvalidError(f"is {shown(raw)}; valid: a mapping of k to the minimum, such as {{3: 0.9}}")
    found = {}
    for k, least in raw.items():
        number = int(k) if isinstance(k, str) and k.isdecimal() else k
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number < 10_000:
            raise InvalidError(f"has the k {shown(k)}; valid: a whole number from 1")
        found[number] = least
    return found


def mapping(raw: Any) -> Mapping[str, Any]:
    """A mapping of names to values."""
    if not isinstance(raw, Mapping) or not all(isinstance(name, str) for name in raw):
        raise InvalidError(f"is {shown(raw)}; valid: a mapping of names to values")
    return raw


def grader(raw: Any) -> Any:
    """Check only the form of a grader; ``grading`` checks its name and options."""
    several = raw if isinstance(raw, (list, tuple)) else [raw]
    for index, one in enumerate(several):
        named = isinstance(one, str) and one.strip()
        with_options = isinstance(one, Mapping) and len(one) == 1 and all(isinstance(name, str) for name in one)
        if not (named or with_options or callable(one) or hasattr(one, "grade")):
            raise InvalidError(
                f"is {shown(one)}; valid: a grader's name, {{name: {{option: value}}}}, 'module:function', a function",
                *([index] if several is raw else []),
            )
    if not several:
        raise InvalidError("is an empty list; valid: a grader, or a list of graders")
    return raw


def reasoning(raw: Any) -> Any:
    """Whether reasoning is removed from answers, or the marks around it."""
    if isinstance(raw, bool):
        return raw
    several = [raw] if isinstance(raw, Mapping) else raw
    if not isinstance(several, (list, tuple)) or not several:
        raise InvalidError(
            f"is {shown(raw)}; valid: true, false, {{open: '<plan>', close: '</plan>'}}, or a list of these"
        )
    for one in several:
        marks = set(one) == {"open", "close"} and list(one.values()) if isinstance(one, Mapping) else []
        if not marks or not all(isinstance(mark, str) and mark.strip() for mark in marks):
            raise InvalidError(
                f"is {shown(one)}; valid: the two marks of a thought, {{open: '<plan>', close: '</plan>'}}"
            )
    return raw


def endpoints(raw: Any) -> Any:
    """Endpoints, which may contain keys and are never shown in messages."""
    if isinstance(raw, str) and raw.strip():
        return raw
    if isinstance(raw, (list, tuple)) and raw and all(isinstance(item, Mapping) for item in raw):
        return tuple(raw)
    raise InvalidError("is not usable; valid: the path of a YAML or JSON file, or a list of mappings, one per endpoint")


_MOST_SHOTS = 32


def shots(raw: Any) -> tuple[int, ...]:
    """Every number of examples to choose from."""
    domain = parse_domain("shots", raw)
    if isinstance(domain, Range) and domain.whole:
        found: tuple[Any, ...] = tuple(range(int(domain.low), int(domain.top) + 1))
    elif isinstance(domain, (Constant, Choice)):
        found = (domain.value,) if isinstance(domain, Constant) else domain.options
    else:
        found = (None,)
    if not all(isinstance(k, int) and not isinstance(k, bool) and 0 <= k <= _MOST_SHOTS for k in found):
        raise InvalidError(
            f"is {shown(raw)}; valid: examples in a prompt, from 0 to {_MOST_SHOTS}: a number, a list, randint(0, 4)"
        )
    return tuple(sorted(found))


def baselines(raw: Any) -> tuple[Mapping[str, Any], ...]:
    """One or more configurations."""
    several = [raw] if isinstance(raw, Mapping) else raw
    if not isinstance(several, (list, tuple)) or not all(isinstance(item, Mapping) for item in several):
        raise InvalidError(
            f"is {shown(raw)}; valid: a list of configurations, as in [{{'model': 'gpt-4o', 'temperature': 1, 'n': 1}}]"
        )
    return tuple(several)


_MAX = 200
"""Limit in bytes; with the longest suffix a file name stays within the 255 that file systems allow."""
_FORBIDDEN = lazy_regex(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED = lazy_regex(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_name(raw: Any) -> str:
    """Check a suite's name, and normalise it to NFC."""
    if not isinstance(raw, str) or not raw.strip():
        raise InvalidError(f"is {shown(raw)}; valid: a text that can be part of a file name")
    name = unicodedata.normalize("NFC", raw.strip())
    found = _FORBIDDEN.search(name) or next(
        (c for c in name if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")), None
    )
    if found:
        bad = found if isinstance(found, str) else found[0]
        raise InvalidError(f"is {shown(raw)}; {bad!r} cannot be part of a file name")
    if name.startswith(".") or name.endswith(".") or _RESERVED.fullmatch(name):
        raise InvalidError(f"is {shown(raw)}, which some systems do not allow as a file name")
    if len(name.encode()) > _MAX:
        raise InvalidError(f"is {shown(raw)}, {len(name.encode())} bytes long; the limit is {_MAX}")
    return name


REQUIRED = object()
"""Marks a required key."""

GATE = r"^(min|max)_"
"""Keys of this form that are not in the table are thresholds."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a suite."""

    name: str
    form: ValueForm
    default: Any
    doc: str
    """One or two sentences in Markdown."""
    type: str = ""
    """Annotation for editors and type checkers, where the form's is too wide."""
    off: bool = False
    """Whether an explicit None disables it; for other keys, None means the default."""


def closed(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    """JSON Schema of a mapping with no other keys."""
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": dict(properties), **needed, "additionalProperties": False}


def or_list(schema: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema of one value, or of a non-empty list of them."""
    return {"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]}


_TEMPLATE = {"$ref": "#/$defs/template"}
_PROPOSED = {
    "seeds": or_list({"type": "string"}),
    "model": {"type": "string"},
    "rounds": {"type": "integer", "minimum": 1},
    "per_round": {"type": "integer", "minimum": 1},
    "by": {"enum": ["model", "gepa"]},
}
_PROPOSE = closed({"propose": closed(_PROPOSED, "seeds", "model")}, "propose")
_STEP = closed({"model": {"type": ["string", "array"]}, "accept": {"type": "object"}})
_SHOTS = {"type": "integer", "minimum": 0}
_FUNCTION = {"type": "string", "pattern": "^[^:]+:[^:]+$"}
_MARKS = closed({mark: {"type": "string", "minLength": 1} for mark in ("open", "close")}, "open", "close")
_MODEL = {"anyOf": [{"type": "string", "minLength": 1}, {"$ref": "#/$defs/model"}]}


KEYS: tuple[Key, ...] = (
    Key(
        "name",
        ValueForm(check_name, {"type": "string", "maxLength": 100}),
        None,
        "Unique in the run; names the files. Default: from the test or file.",
        type="str | None",
    ),
    Key(
        "dataset",
        anything(
            {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "items": {"type": "object"}, "minItems": 1},
                ]
            }
        ),
        REQUIRED,
        "A path (`jsonl json csv tsv yaml parquet`, `.gz` too), a glob, `archive.zip/member`, `hf:NAME?name=&split=`, "
        "`module:function`, a list of rows, or a function that returns rows.",
        type="str | Sequence[Mapping[str, Any]] | Callable[..., Any]",
    ),
    Key("columns", texts("a list of column names"), None, "Column names for a CSV or TSV file without a header line."),
    Key(
        "delimiter",
        ValueForm(_delimiter, {"type": "string", "minLength": 1, "maxLength": 1}),
        None,
        "The character between the cells of a CSV or TSV file. Default: a comma, or what the first lines of the file show.",
        type="str | None",
    ),
    Key(
        "where",
        ValueForm(condition, {"type": "string", "minLength": 1}),
        None,
        "Which rows to use: comparisons of columns and constants, joined by `and or not in`, or a function of the row.",
        type="str | Callable[[Mapping[str, Any]], bool] | None",
    ),
    Key("shuffle", flag(), True, "Order the rows by content and seed, independently of their order in the file."),
    Key("seed", whole(0, "a seed"), 0, "Seed for the order of rows, the cache and the search."),
    Key("tune_size", rows_or_share(0), 20, "Rows to tune on; below 1, a fraction of all rows."),
    Key(
        "test_size",
        whole(1, "rows"),
        None,
        "Maximum number of rows to guard on. Default: all the rest; if none is left, the tuning rows.",
    ),
    Key(
        "split",
        one_of("random", "hash"),
        "random",
        "`random`: the first `tune_size` rows tune. "
        "`hash`: a row's content decides, so that no row changes sides when others are appended.",
    ),
    Key(
        "stratify",
        text("a column's name"),
        None,
        "A column whose values should be as frequent in both parts as in the whole.",
    ),
    Key(
        "duplicates",
        one_of("refuse", "drop", "allow"),
        "refuse",
        "What to do with a test row that gives the same prompt as a tuning row.",
    ),
    Key(
        "task",
        anything(_FUNCTION),
        None,
        "A function of the app as the unit under test: `module:function`, or a function, sync or async. Its parameters are "
        "filled by name, and its result is graded. Used instead of `prompt`; a `prompt` next to it is passed as "
        '`config["prompt"]`.',
        type="str | Callable[..., Any]",
    ),
    Key(
        "params",
        ValueForm(read_params, {"type": "object"}),
        {},
        "The task's own parameters, each a constant, a list, a range, or `models: [...]` for a model; part of the search.",
        type="Mapping[str, Any] | Sequence[Any]",
    ),
    Key(
        "prompt",
        anything({"anyOf": [_TEMPLATE, {"type": "array", "items": _TEMPLATE, "minItems": 1}, _PROPOSE]}),
        None,
        "A template or a list to choose from: format strings over the columns, or functions of the row; or `propose(...)`, "
        "prompts that a model writes during the search. Give this, `messages` or `task`.",
        type="str | Callable[..., Any] | Sequence[Any] | Propose | Mapping[str, Any] | None",
    ),
    Key(
        "shots",
        ValueForm(shots, {"anyOf": [_SHOTS, {"type": "array", "items": _SHOTS}, {"$ref": "#/$defs/range"}]}),
        (),
        "How many tuning rows precede the question as examples, as in `randint(0, 4)`. Example rows are not scored, and "
        "none is a row of the guard.",
        type="int | Domain | Sequence[int] | Mapping[str, Sequence[int]]",
    ),
    Key(
        "messages",
        anything({"$ref": "#/$defs/messages_choice"}),
        None,
        'A list of chat messages whose contents are templates, `"{history}"` (a column with chat messages), or a list of these '
        "to choose from.",
        type="Sequence[Any] | Callable[..., Any] | None",
    ),
    Key("system", text("the system message"), None, "A fixed system message before `prompt`, sent unchanged."),
    Key(
        "model",
        anything(or_list(_MODEL)),
        None,
        "A model or a list. An entry may be a mapping with what differs for this model: "
        "`{model: o3, temperature: null}`. Not needed with a `task` whose models are in `params`.",
        type="str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None",
    ),
    Key(
        "extra_body",
        ValueForm(mapping, {"type": "object"}),
        {},
        "Parameters that only your server knows (`top_k`, `min_p`, ...), each a constant, a list or a range.",
        type="Mapping[str, Any] | None",
    ),
    Key(
        "grader",
        ValueForm(grader, {"$ref": "#/$defs/grader"}),
        REQUIRED,
        "A built-in name, `{name: {option: value}}`, `module:function`, a function `grade(responses, **row) -> dict`, "
        "or a list of these.",
    ),
    Key(
        "vote",
        or_callable(one_of("equivalence", "medoid")),
        "equivalence",
        "How one answer is chosen from several.",
        type="str | Callable[..., Any]",
    ),
    Key(
        "reasoning",
        ValueForm(
            reasoning, {"anyOf": [{"type": "boolean"}, _MARKS, {"type": "array", "items": _MARKS, "minItems": 1}]}
        ),
        True,
        "Remove the model's reasoning (`<think>...</think>` and the like) from an answer before grading. `false`: grade "
        "everything; `{open: ..., close: ...}`, or a list of these: custom marks instead of the built-in ones.",
        type="bool | Mapping[str, str] | Sequence[Mapping[str, str]]",
    ),
    Key(
        "allow_vacuous",
        flag(),
        False,
        "Accept a grader that marks an empty or unrelated answer as correct; every report says so.",
    ),
    Key("metric", text("a metric's name"), "success_vote", "The metric to tune."),
    Key("mode", one_of("max", "min"), "max", "Whether to maximise or minimise the metric."),
    Key("allow_constant_prompt", flag(), False, "Accept a prompt that is the same for every row."),
    Key(
        "aggregate",
        or_callable(
            ValueForm(text("mean, median, module:function").parse, {"anyOf": [{"enum": ["mean", "median"]}, _FUNCTION]})
        ),
        "mean",
        "How the examples' values are aggregated: `mean`, `median`, `module:function`, "
        "or a function of a list of numbers. The search always compares means, and says so.",
        type="str | Callable[[Sequence[float]], float]",
    ),
    Key("group_by", text("a column's name"), None, "A column to group results by; thresholds may be given per group."),
    Key(
        "inference_budget",
        dollars("USD per instance"),
        None,
        "Mean USD per instance; also the guard's cost limit unless `max_inference_cost` is given.",
    ),
    Key("optimization_budget", dollars("USD for the whole search"), None, "USD for the whole search; never exceeded."),
    Key("num_samples", whole(1, "trials", also=-1), 20, "Number of trials; -1: limited only by `optimization_budget`."),
    Key(
        "prices",
        ValueForm(parse_prices, PRICES_SCHEMA),
        {},
        "`{model: {input: USD per 1M tokens, output: ..., cached_input: ..., cache_write: ...}}`, or "
        "`{name: {model: ...}}` where a gateway has another name for a model. Default: genai-prices.",
        type="Mapping[str, Mapping[str, Dollars]]",
    ),
    Key(
        "thresholds",
        ValueForm(mapping, {"type": "object", "additionalProperties": {"$ref": "#/$defs/threshold"}}),
        {},
        "Thresholds in one mapping, `{min_json_valid: 0.99}`, the same as separate keys. For type checkers, which cannot know "
        "the metrics of a custom grader.",
        type="Mapping[str, Threshold]",
    ),
    Key(
        "pass_at_k",
        ValueForm(read_gates, {"type": "object", "minProperties": 1}),
        None,
        "`{k: minimum}`: the probability that at least one of k responses to a row is correct, an unbiased estimate from its n. "
        "The same as `min_pass_at_<k>`.",
        type="Mapping[int, float]",
    ),
    Key(
        "pass_hat_k",
        ValueForm(read_gates, {"type": "object", "minProperties": 1}),
        None,
        "`{k: minimum}`: the probability that all of k responses to a row are correct. The same as `min_pass_hat_<k>`.",
        type="Mapping[int, float]",
    ),
    Key(
        "max_drop",
        or_auto(ratio("a drop of the metric", 1)),
        "auto",
        "How far the metric may drop below the baseline, absolute. Default: 0 for recorded answers; for new answers, no "
        "further than chance explains (see `alpha`). `None`: not gated.",
        off=True,
    ),
    Key(
        "alpha",
        or_auto(ratio("a significance level", 1)),
        "auto",
        "For new answers, a drop with an exact McNemar p-value below this fails. Default: 0.05. "
        "`None`: only `max_drop` counts.",
        off=True,
    ),
    Key(
        "max_cost_rise",
        or_auto(ratio("a share of the baseline's cost")),
        "auto",
        "How much the cost per instance may rise, as a fraction of the baseline's: 0.1 is 10 %. Default: 0 for recorded "
        "answers, 0.1 for new ones. `None`: not gated.",
        off=True,
    ),
    Key(
        "max_unknown", whole(0, "examples"), 0, "How many examples may lack an answer; more is inconclusive, and fails."
    ),
    Key(
        "baselines",
        ValueForm(baselines, {"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]}),
        (),
        "Configurations evaluated alongside the winner; parameters left out are those of the untuned configuration.",
        type="Mapping[str, Any] | Sequence[Mapping[str, Any]]",
    ),
    Key(
        "prefer",
        one_of("quality", "cost", "pareto"),
        "quality",
        "Which configuration wins: the best score; the cheapest `within` of it; or the best score, with the Pareto front of "
        "score and cost in the lock file.",
    ),
    Key(
        "within",
        ratio("a difference of the metric", 1),
        0.02,
        "With `prefer: cost`: how far the score may be below the best, absolute.",
    ),
    Key(
        "cascade",
        anything(
            {"anyOf": [{"type": "boolean"}, _STEP, {"type": "array", "items": _STEP, "minItems": 2, "maxItems": 2}]}
        ),
        False,
        "Whether the search may choose a cascade: a cheap configuration votes, and a more expensive one answers the rows "
        "without a clear vote. `{accept: {regex, schema, function or margin}}`: what the cheap answers must fulfil too; "
        "a list of two steps: which `model` each may have.",
        type="bool | Mapping[str, Any] | Sequence[Mapping[str, Any]]",
    ),
    Key("base_url", text("a URL"), None, "The OpenAI-compatible server. Default: `--llm-base-url`, `OPENAI_BASE_URL`."),
    Key(
        "endpoints",
        ValueForm(
            endpoints, {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}, "minItems": 1}]}
        ),
        None,
        "Endpoints in order of failover: a list, or the path of a file.",
        type="str | Sequence[Mapping[str, Any]] | None",
    ),
    Key(
        "concurrency",
        whole(1, "requests in flight", high=MOST_IN_FLIGHT),
        None,
        "Requests in flight. Default: `--llm-concurrency`, 32.",
    ),
    Key("timeout", positive("seconds for one request"), None, "Seconds for one request. Default: `--llm-timeout`, 60."),
    Key(
        "deadline",
        positive("seconds for all requests"),
        None,
        "Seconds for all of the suite's requests in a run. Default: none.",
    ),
)
"""All keys except OpenAI parameters and thresholds."""

PARAMETER_KEYS: tuple[str, ...] = (TEMPERATURE_OR_TOP_P, *PARAMETERS)
"""Keys that are OpenAI parameters: a constant, a list (choice) or a range."""


Aggregate = Callable[[Sequence[float]], float]

AGGREGATES: Mapping[str, Aggregate] = {"mean": statistics.fmean, "median": statistics.median}


def aggregator(raw: Any, base_dir: Path, root: Path | None = None) -> Aggregate:
    """The function that ``aggregate`` names."""
    if callable(raw):
        return raw  # type: ignore[no-any-return]
    if raw in AGGREGATES:
        return AGGREGATES[raw]
    if is_function_path(str(raw)):
        return load_function(str(raw), base_dir, root)
    raise InvalidError(
        f"is {shown(raw)}{did_you_mean(raw, AGGREGATES)}; valid: {', '.join(AGGREGATES)}, 'module:function', a function"
    )


SCORES = ("success_vote", "success", "expected_success")
"""Metrics of every built-in grader, given by each answer's key and correctness."""
RATES = (*SCORES, "refused")
"""Metrics between 0 and 1."""
COSTS = ("inference_cost", "cost")
"""Metrics in USD: per instance, and for the run."""
METRICS = (*RATES, *COSTS, "latency", "latency_p50", "latency_p90", "latency_p95", "latency_p99")
"""Metrics of every suite; graders may add more."""

RELIABILITY_GATES = ("pass_at_k", "pass_hat_k")
"""Keys that map k to the minimum of ``pass_at_<k>`` or ``pass_hat_<k>``."""
ROW_RATE = "row_rate"
"""Fraction of a row's responses that are correct; for a suite, that of its worst row."""
RELIABILITY = lazy_regex(r"pass_(at|hat)_([1-9]\d{0,3})")


def reliability_names(metrics: Iterable[str]) -> tuple[str, ...]:
    """The metrics that are measured over the responses of each row."""
    return tuple(dict.fromkeys(name for name in metrics if name == ROW_RATE or RELIABILITY.fullmatch(name)))


_KEY = lazy_regex(r"(min|max)_([^\W\d]\w*)")


@dataclass(frozen=True, slots=True)
class Threshold:
    """A gate: the minimum or maximum of a metric."""

    metric: str
    direction: Literal["min", "max"]
    limit: Decimal | Mapping[str, Decimal]
    """A mapping gives a limit per group."""

    @property
    def key(self) -> str:
        return f"{self.direction}_{self.metric}"

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups with their own limit."""
        return tuple(self.limit) if isinstance(self.limit, Mapping) else ()

    def of_group(self, group: str | None) -> Decimal | None:
        """The limit for a group, or (None) for the whole suite; None if there is none."""
        if isinstance(self.limit, Mapping):
            return self.limit.get(group) if group is not None else None
        return self.limit if group is None else None


def parse_threshold(key: str, raw: Any) -> Threshold:
    """Parse a threshold such as ``min_success_vote=0.85`` or ``min_success_vote={"geometry": 0.7}``.

    Raises:
        SuiteError: the metric looks like a misspelled known one, or the limit is not a possible value.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise InvalidError(f"{key!r} is not a threshold; valid: min_<metric> or max_<metric>")
    direction: Literal["min", "max"] = "min" if match[1] == "min" else "max"
    metric = match[2]
    if metric not in METRICS and (near := did_you_mean(metric, METRICS, cutoff=0.85)):
        raise InvalidError(f"no metric {metric!r}{near}; there are {', '.join(METRICS)}, and what the grader returns")
    if not isinstance(raw, Mapping):
        return Threshold(metric, direction, _limit(metric, raw))
    if not raw:
        raise InvalidError("has no group; valid: a number, or {group: number, ...}")
    limits = {}
    for group, limit in raw.items():
        try:
            limits[str(group)] = _limit(metric, limit)
        except InvalidError as problem:
            raise problem.inside(str(group)) from None
    return Threshold(metric, direction, limits)


def _limit(metric: str, raw: Any) -> Decimal:
    limit = parse_number(raw)
    if limit is None:
        raise InvalidError(f"is {shown(raw)}; valid: a number")
    if metric in RATES and not 0 <= limit <= 1:
        hint = f" (did you mean {(limit / 100).normalize():f}?)" if 1 < limit <= 100 else ""
        raise InvalidError(f"is {shown(raw)}{hint}; {metric} is between 0 and 1")
    if metric in COSTS and limit < 0:
        raise InvalidError(f"is {shown(raw)}; {metric} is in USD, from 0")
    return limit
