"""Annotations of a suite's keys and of OpenAI's parameters. Generated: ``python -m pytest_llmtune.suite.signature``."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict

if TYPE_CHECKING:
    from pytest_llmtune.suite.domains import Domain
    from pytest_llmtune.suite.propose import Propose

Dollars = Decimal | float | str
Number = Decimal | float | str
Threshold = Number | Mapping[str, Number] | None
"""The guard fails where a metric is below its minimum or above its maximum; a mapping gives a limit per group."""


class SuiteKeys(TypedDict, total=False):
    """The keys of a suite."""

    name: str | None
    """Unique in the run; names the files. Default: from the test or file."""
    dataset: Required[str | Sequence[Mapping[str, Any]] | Callable[..., Any]]
    """A path (`jsonl json csv tsv yaml parquet`, `.gz` too), a glob, `archive.zip/member`, `hf:NAME?name=&split=`, `module:function`, a list of rows, or a function that returns rows."""
    columns: Sequence[str] | None
    """Column names for a CSV or TSV file without a header line."""
    delimiter: str | None
    """The character between the cells of a CSV or TSV file. Default: a comma, or what the first lines of the file show."""
    where: str | Callable[[Mapping[str, Any]], bool] | None
    """Which rows to use: comparisons of columns and constants, joined by `and or not in`, or a function of the row."""
    shuffle: bool | None
    """Order the rows by content and seed, independently of their order in the file."""
    seed: int | None
    """Seed for the order of rows, the cache and the search."""
    tune_size: float | None
    """Rows to tune on; below 1, a fraction of all rows."""
    test_size: int | None
    """Maximum number of rows to guard on. Default: all the rest; if none is left, the tuning rows."""
    split: Literal["random", "hash"] | None
    """`random`: the first `tune_size` rows tune. `hash`: a row's content decides, so that no row changes sides when others are appended."""
    stratify: str | None
    """A column whose values should be as frequent in both parts as in the whole."""
    duplicates: Literal["refuse", "drop", "allow"] | None
    """What to do with a test row that gives the same prompt as a tuning row."""
    task: str | Callable[..., Any] | None
    """A function of the app as the unit under test: `module:function`, or a function, sync or async. Its parameters are filled by name, and its result is graded. Used instead of `prompt`; a `prompt` next to it is passed as `config["prompt"]`."""
    params: Mapping[str, Any] | Sequence[Any] | None
    """The task's own parameters, each a constant, a list, a range, or `models: [...]` for a model; part of the search."""
    prompt: str | Callable[..., Any] | Sequence[Any] | Propose | Mapping[str, Any] | None
    """A template or a list to choose from: format strings over the columns, or functions of the row; or `propose(...)`, prompts that a model writes during the search. Give this, `messages` or `task`."""
    shots: int | Domain | Sequence[int] | Mapping[str, Sequence[int]] | None
    """How many tuning rows precede the question as examples, as in `randint(0, 4)`. Example rows are not scored, and none is a row of the guard."""
    messages: Sequence[Any] | Callable[..., Any] | None
    """A list of chat messages whose contents are templates, `"{history}"` (a column with chat messages), or a list of these to choose from."""
    system: str | None
    """A fixed system message before `prompt`, sent unchanged."""
    model: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None
    """A model or a list. An entry may be a mapping with what differs for this model: `{model: o3, temperature: null}`. Not needed with a `task` whose models are in `params`."""
    extra_body: Mapping[str, Any] | None
    """Parameters that only your server knows (`top_k`, `min_p`, ...), each a constant, a list or a range."""
    grader: Required[Any]
    """A built-in name, `{name: {option: value}}`, `module:function`, a function `grade(responses, **row) -> dict`, or a list of these."""
    vote: str | Callable[..., Any] | None
    """How one answer is chosen from several."""
    reasoning: bool | Mapping[str, str] | Sequence[Mapping[str, str]] | None
    """Remove the model's reasoning (`<think>...</think>` and the like) from an answer before grading. `false`: grade everything; `{open: ..., close: ...}`, or a list of these: custom marks instead of the built-in ones."""
    allow_vacuous: bool | None
    """Accept a grader that marks an empty or unrelated answer as correct; every report says so."""
    metric: str | None
    """The metric to tune."""
    mode: Literal["max", "min"] | None
    """Whether to maximise or minimise the metric."""
    allow_constant_prompt: bool | None
    """Accept a prompt that is the same for every row."""
    aggregate: str | Callable[[Sequence[float]], float] | None
    """How the examples' values are aggregated: `mean`, `median`, `module:function`, or a function of a list of numbers. The search always compares means, and says so."""
    group_by: str | None
    """A column to group results by; thresholds may be given per group."""
    inference_budget: Dollars | None
    """Mean USD per instance; also the guard's cost limit unless `max_inference_cost` is given."""
    optimization_budget: Dollars | None
    """USD for the whole search; never exceeded."""
    num_samples: int | None
    """Number of trials; -1: limited only by `optimization_budget`."""
    prices: Mapping[str, Mapping[str, Dollars]] | None
    """`{model: {input: USD per 1M tokens, output: ..., cached_input: ..., cache_write: ...}}`, or `{name: {model: ...}}` where a gateway has another name for a model. Default: genai-prices."""
    thresholds: Mapping[str, Threshold] | None
    """Thresholds in one mapping, `{min_json_valid: 0.99}`, the same as separate keys. For type checkers, which cannot know the metrics of a custom grader."""
    pass_at_k: Mapping[int, float] | None
    """`{k: minimum}`: the probability that at least one of k responses to a row is correct, an unbiased estimate from its n. The same as `min_pass_at_<k>`."""
    pass_hat_k: Mapping[int, float] | None
    """`{k: minimum}`: the probability that all of k responses to a row are correct. The same as `min_pass_hat_<k>`."""
    max_drop: float | Literal["auto"] | None
    """How far the metric may drop below the baseline, absolute. Default: 0 for recorded answers; for new answers, no further than chance explains (see `alpha`). `None`: not gated."""
    alpha: float | Literal["auto"] | None
    """For new answers, a drop with an exact McNemar p-value below this fails. Default: 0.05. `None`: only `max_drop` counts."""
    max_cost_rise: float | Literal["auto"] | None
    """How much the cost per instance may rise, as a fraction of the baseline's: 0.1 is 10 %. Default: 0 for recorded answers, 0.1 for new ones. `None`: not gated."""
    max_unknown: int | None
    """How many examples may lack an answer; more is inconclusive, and fails."""
    baselines: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
    """Configurations evaluated alongside the winner; parameters left out are those of the untuned configuration."""
    prefer: Literal["quality", "cost", "pareto"] | None
    """Which configuration wins: the best score; the cheapest `within` of it; or the best score, with the Pareto front of score and cost in the lock file."""
    within: float | None
    """With `prefer: cost`: how far the score may be below the best, absolute."""
    cascade: bool | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
    """Whether the search may choose a cascade: a cheap configuration votes, and a more expensive one answers the rows without a clear vote. `{accept: {regex, schema, function or margin}}`: what the cheap answers must fulfil too; a list of two steps: which `model` each may have."""
    base_url: str | None
    """The OpenAI-compatible server. Default: `--llm-base-url`, `OPENAI_BASE_URL`."""
    endpoints: str | Sequence[Mapping[str, Any]] | None
    """Endpoints in order of failover: a list, or the path of a file."""
    concurrency: int | None
    """Requests in flight. Default: `--llm-concurrency`, 32."""
    timeout: float | None
    """Seconds for one request. Default: `--llm-timeout`, 60."""
    deadline: float | None
    """Seconds for all of the suite's requests in a run. Default: none."""
    temperature_or_top_p: Any
    """A choice of branches: a temperature or a top_p."""
    temperature: float | Domain | Mapping[str, Sequence[Any]] | Sequence[float | None] | None
    """A number from 0 to 2."""
    top_p: float | Domain | Mapping[str, Sequence[Any]] | Sequence[float | None] | None
    """A number from 0 to 1."""
    max_tokens: int | Domain | Mapping[str, Sequence[Any]] | Sequence[int | None] | None
    """A whole number from 1."""
    max_completion_tokens: int | Domain | Mapping[str, Sequence[Any]] | Sequence[int | None] | None
    """A whole number from 1."""
    n: int | Domain | Mapping[str, Sequence[Any]] | Sequence[int | None] | None
    """A whole number from 1 to 10000."""
    stop: Any
    frequency_penalty: float | Domain | Mapping[str, Sequence[Any]] | Sequence[float | None] | None
    """A number from -2 to 2."""
    presence_penalty: float | Domain | Mapping[str, Sequence[Any]] | Sequence[float | None] | None
    """A number from -2 to 2."""
    reasoning_effort: Any
    verbosity: Any
    response_format: Any
    logit_bias: Any
    logprobs: Any
    top_logprobs: int | Domain | Mapping[str, Sequence[Any]] | Sequence[int | None] | None
    """A whole number from 0 to 20."""
    tools: Any
    tool_choice: Any
    parallel_tool_calls: Any
    functions: Any
    function_call: Any
    metadata: Any
    modalities: Any
    prediction: Any
    prompt_cache_key: Any
    prompt_cache_retention: Any
    safety_identifier: Any
    service_tier: Any
    store: Any
    user: Any
    web_search_options: Any
    min_success_vote: Threshold
    max_success_vote: Threshold
    min_success: Threshold
    max_success: Threshold
    min_expected_success: Threshold
    max_expected_success: Threshold
    min_refused: Threshold
    max_refused: Threshold
    min_inference_cost: Threshold
    max_inference_cost: Threshold
    min_cost: Threshold
    max_cost: Threshold
    min_latency: Threshold
    max_latency: Threshold
    min_latency_p50: Threshold
    max_latency_p50: Threshold
    min_latency_p90: Threshold
    max_latency_p90: Threshold
    min_latency_p95: Threshold
    max_latency_p95: Threshold
    min_latency_p99: Threshold
    max_latency_p99: Threshold
    min_row_rate: Threshold
    max_row_rate: Threshold


class Parameters(TypedDict, total=False):
    """OpenAI parameters of one request."""

    model: str
    """The requested model."""
    temperature: float | None
    """A number from 0 to 2."""
    top_p: float | None
    """A number from 0 to 1."""
    max_tokens: int | None
    """A whole number from 1."""
    max_completion_tokens: int | None
    """A whole number from 1."""
    n: int | None
    """A whole number from 1 to 10000."""
    stop: Any
    frequency_penalty: float | None
    """A number from -2 to 2."""
    presence_penalty: float | None
    """A number from -2 to 2."""
    reasoning_effort: Any
    verbosity: Any
    response_format: Any
    logit_bias: Any
    logprobs: Any
    top_logprobs: int | None
    """A whole number from 0 to 20."""
    tools: Sequence[Any] | None
    tool_choice: Any
    parallel_tool_calls: Any
    functions: Sequence[Any] | None
    function_call: Any
    metadata: Any
    modalities: Sequence[Any] | None
    prediction: Any
    prompt_cache_key: Any
    prompt_cache_retention: Any
    safety_identifier: Any
    service_tier: Any
    store: Any
    user: Any
    web_search_options: Any
