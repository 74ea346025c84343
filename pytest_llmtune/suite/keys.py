"""The keys of a suite, in one table: it drives validation, YAML, the editors' schema and the reference in the docs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytest_llmtune.money.prices_part import PRICES
from pytest_llmtune.suite import forms, shapes
from pytest_llmtune.suite.forms import Form
from pytest_llmtune.suite.names import check_name
from pytest_llmtune.suite.parameters import PARAMETERS, TEMPERATURE_OR_TOP_P

__all__ = ["GATE", "KEYS", "PARAMETER_KEYS", "REQUIRED", "Key"]


REQUIRED = object()
"""The default of a key without one."""

GATE = r"^(min|max)_"
"""Any key of this form that is not in the table is a threshold on a metric."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a suite."""

    name: str
    form: Form
    default: Any
    doc: str
    """One sentence or two, in Markdown."""


_TEMPLATE = {"$ref": "#/$defs/template"}
_FUNCTION = {"type": "string", "pattern": "^[^:]+:[^:]+$"}
_MODEL = {"anyOf": [{"type": "string", "minLength": 1}, {"$ref": "#/$defs/model"}]}


KEYS: tuple[Key, ...] = (
    Key(
        "name",
        Form(check_name, {"type": "string", "maxLength": 100}),
        None,
        "Unique in the run; names the files. Default: from the test or file.",
    ),
    Key(
        "dataset",
        forms.anything(
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
    ),
    Key(
        "columns",
        forms.texts("a list of column names"),
        None,
        "The names of the columns of a CSV or TSV file that has no header line.",
    ),
    Key(
        "where",
        Form(shapes.condition, {"type": "string", "minLength": 1}),
        None,
        "Which rows to use: comparisons of columns and constants, joined by `and or not in`, or a function of the row.",
    ),
    Key(
        "shuffle",
        forms.flag(),
        True,
        "Put the rows into an order by content and seed; re-ordering the file does not change it.",
    ),
    Key("seed", forms.whole(0, "a seed"), 0, "Orders the rows, keeps caches apart, and seeds the search."),
    Key("tune_size", forms.rows_or_share(0), 20, "Rows to tune on; below 1, a share of all rows."),
    Key(
        "test_size",
        forms.whole(1, "rows"),
        None,
        "At most so many rows to guard on. Default: all the rest; where none is left, the tuning rows.",
    ),
    Key(
        "split",
        forms.one_of("random", "hash"),
        "random",
        "`random`: the first `tune_size` rows tune. "
        "`hash`: a row's own content decides, so that none changes sides when rows are appended.",
    ),
    Key(
        "stratify",
        forms.text("a column's name"),
        None,
        "A column whose values are to be as frequent in both parts as in the whole.",
    ),
    Key(
        "duplicates",
        forms.one_of("refuse", "drop", "allow"),
        "refuse",
        "What to do with a test row that asks the same as a tuning row.",
    ),
    Key(
        "prompt",
        forms.anything({"anyOf": [_TEMPLATE, {"type": "array", "items": _TEMPLATE, "minItems": 1}]}),
        None,
        "One template or a list to choose from: format strings over the columns, or functions of the row. "
        "This or `messages`.",
    ),
    Key(
        "messages",
        forms.anything({"$ref": "#/$defs/messages_choice"}),
        None,
        "A list of chat messages whose contents are templates, or a list of such lists to choose from.",
    ),
    Key("system", forms.text("the system message"), None, "A fixed system message before `prompt`; sent as it stands."),
    Key(
        "model",
        forms.anything({"anyOf": [_MODEL, {"type": "array", "items": _MODEL, "minItems": 1}]}),
        REQUIRED,
        "One model or a list. An entry may be a mapping, `{model: o3, temperature: null}`: "
        "what differs for this model.",
    ),
    Key(
        "extra_body",
        Form(shapes.mapping, {"type": "object"}),
        {},
        "Parameters that only your server knows (`top_k`, `min_p`, ...), each a constant, a list or a range.",
    ),
    Key(
        "grader",
        Form(shapes.grader, {"$ref": "#/$defs/grader"}),
        REQUIRED,
        "A built-in name, `{name: {option: value}}`, `module:function`, a function `grade(responses, **row) -> dict`, "
        "or a list of these.",
    ),
    Key(
        "vote",
        forms.or_callable(forms.one_of("equivalence", "medoid"), "or a function"),
        "equivalence",
        "How an answer is elected from several.",
    ),
    Key(
        "allow_vacuous",
        forms.flag(),
        False,
        "Accept a grader that calls an empty or a foreign answer right; every report says so.",
    ),
    Key("metric", forms.text("a metric's name"), "success_vote", "What is tuned."),
    Key("mode", forms.one_of("max", "min"), "max", "Whether more of the metric is better, or less."),
    Key(
        "aggregate",
        forms.or_callable(
            Form(
                forms.text("mean, median, module:function").parse, {"anyOf": [{"enum": ["mean", "median"]}, _FUNCTION]}
            ),
            "or a function",
        ),
        "mean",
        "From the examples' values to the suite's: `mean`, `median`, `module:function`, "
        "or a function of a list of numbers. The search compares means all the same, and says so.",
    ),
    Key(
        "group_by",
        forms.text("a column's name"),
        None,
        "A column by which results are reported, and thresholds may be given.",
    ),
    Key(
        "inference_budget",
        forms.dollars("USD per instance"),
        None,
        "USD per instance, mean; also the guard's limit of cost unless `max_inference_cost` is given.",
    ),
    Key(
        "optimization_budget",
        forms.dollars("USD for the whole search"),
        None,
        "USD for the whole search; never passed.",
    ),
    Key("num_samples", forms.whole(1, "trials", also=-1), 20, "Trials; -1: only `optimization_budget` decides."),
    Key(
        "prices",
        PRICES,
        {},
        "`{model: {input: USD per 1M tokens, output: ..., cached_input: ...}}`. Default: genai-prices.",
    ),
    Key(
        "max_drop",
        forms.fraction("a drop of the metric"),
        None,
        "How far the metric may fall below the baseline; absolute.",
    ),
    Key(
        "alpha",
        forms.fraction("a significance level"),
        None,
        "A drop counts only where the exact McNemar p-value is below this.",
    ),
    Key(
        "max_unknown",
        forms.whole(0, "examples"),
        0,
        "How many examples may stay without an answer; more is inconclusive, and fails.",
    ),
    Key(
        "baselines",
        Form(shapes.baselines, {"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]}),
        (),
        "Configurations evaluated beside the winner; what one leaves out is the untuned configuration's.",
    ),
    Key(
        "base_url",
        forms.text("a URL"),
        None,
        "The OpenAI-compatible server. Default: `--llm-base-url`, `OPENAI_BASE_URL`.",
    ),
    Key(
        "endpoints",
        Form(
            shapes.endpoints,
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}, "minItems": 1}]},
        ),
        None,
        "Endpoints in order of failover: a list, or the path of a file.",
    ),
    Key(
        "concurrency",
        forms.whole(1, "requests in flight"),
        None,
        "Requests in flight. Default: `--llm-concurrency`, 32.",
    ),
    Key(
        "timeout",
        forms.positive("seconds for one request"),
        None,
        "Seconds for one request. Default: `--llm-timeout`, 60.",
    ),
    Key(
        "deadline",
        forms.positive("seconds for all requests"),
        None,
        "Seconds for everything the suite asks in a run. Default: none.",
    ),
)
"""Every key beside the OpenAI parameters and the thresholds."""

PARAMETER_KEYS: tuple[str, ...] = (TEMPERATURE_OR_TOP_P, *PARAMETERS)
"""Keys that are OpenAI parameters: a constant, a list (choice) or a range."""
