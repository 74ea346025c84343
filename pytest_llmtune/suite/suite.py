"""The ``Suite`` class: its keys, parsed and validated."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.text import did_you_mean, listed, shown
from pytest_llmtune.data.dataset import Dataset, check_source, load
from pytest_llmtune.data.split import Split, split
from pytest_llmtune.errors import SuiteError, problem_of
from pytest_llmtune.suite.cascade import CascadeSteps, read_cascade
from pytest_llmtune.suite.declaration import Declaration, Problems, read_keys, read_thresholds
from pytest_llmtune.suite.domains import n_bounds
from pytest_llmtune.suite.keys import (
    COSTS,
    METRICS,
    RELIABILITY,
    SCORES,
    Aggregate,
    aggregator,
    check_name,
)
from pytest_llmtune.suite.space import read_baselines, read_space
from pytest_llmtune.suite.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from decimal import Decimal

    from pytest_llmtune.suite.keys import Threshold
    from pytest_llmtune.suite.prompts import Template
    from pytest_llmtune.suite.space import Config, Space
    from pytest_llmtune.suite.typed import SuiteKeys
    from pytest_llmtune.types import Example

REFERENCE_COLUMNS = ("answer", "solution", "label", "target", "reference", "expected")
"""Default reference columns: the first that the data have is used if the grader names none."""

_WITHOUT = ("judge", "python", "tools", "calls")
"""Graders that do not require a reference."""


def check_contradictions(values: Mapping[str, Any], problems: Problems) -> None:
    """Find contradictions between keys that are valid by themselves."""
    if values["name"] is None and not any(problem.path == ("name",) for problem in problems.found):
        problems.add("is missing", "name")
    if values["base_url"] is not None and values["endpoints"] is not None:
        problems.add("cannot be given together with endpoints; put the URL into the list", "base_url")
    metric = values["metric"] or ""
    if metric not in METRICS and (near := did_you_mean(metric, METRICS, cutoff=0.85)):
        problems.add(f"is {metric!r}{near}; there are {', '.join(SCORES)}, and what the grader returns", "metric")
    if metric in METRICS and metric not in SCORES:
        limit = "inference_budget=..." if metric in COSTS else f"max_{metric}=..."
        advice = f"nothing would weigh against it; tune a score ({', '.join(SCORES)}, or what the grader returns)"
        if metric in (*COSTS, "latency") and values["mode"] == "max":
            problems.add(f"is 'max', which makes {metric} as high as can be; {advice}, and limit it: {limit}", "mode")
        else:
            problems.add(f"is {metric!r}: {advice}, and limit this one: {limit}", "metric")
    searches = values["space"] is not None and not values["space"].is_constant
    if searches and values["num_samples"] == -1 and values["optimization_budget"] is None:
        no_limit = "is -1 (no limit), so that optimization_budget must limit the search; give it in USD"
        problems.add(no_limit, "num_samples")
    if searches and values["tune_size"] == 0:
        problems.add("is 0, but there is something to choose; give rows to tune on", "tune_size")
    if values["split"] == "hash" and values["stratify"] is not None and not isinstance(values["tune_size"], float):
        unfair = "with split='hash' takes tune_size as a share, as in tune_size=0.2: a count cannot stay fair"
        problems.add(unfair, "stratify")
    _check_thresholds(values["thresholds"], values["group_by"], problems)


def _check_thresholds(thresholds: tuple[Threshold, ...], group_by: str | None, problems: Problems) -> None:
    for gate in thresholds:
        if gate.groups and group_by is None:
            problems.add("has a limit for each group; give group_by, the column of the groups", gate.key)
    for low in (gate for gate in thresholds if gate.direction == "min"):
        for high in (gate for gate in thresholds if gate.direction == "max" and gate.metric == low.metric):
            for group in {None, *low.groups, *high.groups}:
                floor, ceiling = low.of_group(group), high.of_group(group)
                if floor is not None and ceiling is not None and floor > ceiling:
                    problems.add(f"is {floor}, above {high.key}={ceiling}; no value passes both", low.key)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Suite:
    """A suite, given by its keys as keyword arguments: the same as in the marker and in YAML.

    Raises:
        SuiteError: a key is unknown, missing, invalid or contradicts another; one line per problem.
    """

    name: str
    dataset: Any
    """As declared; ``load`` reads it."""
    task: Task | None
    """The app's function, if it is the unit under test."""
    space: Space
    grader: Any
    """As declared; ``grading.resolve`` reads it."""
    columns: tuple[str, ...] | None
    delimiter: str | None
    where: str | Callable[[Mapping[str, Any]], bool] | None
    shuffle: bool
    seed: int
    tune_size: int | float
    test_size: int | None
    split: Literal["random", "hash"]
    stratify: str | None
    duplicates: Literal["refuse", "drop", "allow"]
    vote: Any
    reasoning: Any
    """As declared: whether the model's reasoning is removed before grading, or its marks."""
    allow_vacuous: bool
    allow_constant_prompt: bool
    metric: str
    mode: Literal["max", "min"]
    aggregate: Any
    group_by: str | None
    inference_budget: Decimal | None
    optimization_budget: Decimal | None
    num_samples: int
    prices: Mapping[str, Mapping[str, Decimal]]
    thresholds: tuple[Threshold, ...]
    max_drop: float | Literal["auto"] | None
    alpha: float | Literal["auto"] | None
    max_cost_rise: float | Literal["auto"] | None
    max_unknown: int
    baselines: tuple[Config, ...]
    prefer: Literal["quality", "cost", "pareto"]
    within: float
    shots: tuple[int, ...]
    cascade: bool | CascadeSteps
    """Whether a cascade may win, and of which steps."""
    base_url: str | None
    endpoints: Any
    """As declared; may contain keys."""
    concurrency: int | None
    timeout: float | None
    deadline: float | None
    declaration: Declaration = field(compare=False)

    def __init__(self, *, base_dir: str | Path | None = None, **keys: Unpack[SuiteKeys]) -> None:
        base = Path(base_dir) if base_dir is not None else Path.cwd()
        where = Declaration(f"Suite({shown(keys.get('name'))})", base)
        problem = problem_of(partial(_declare, self, keys, where))
        if problem is not None:
            del keys
            raise problem

    def __repr__(self) -> str:
        return f"Suite({getattr(self, 'name', None)!r})"  # the rest may contain keys and whole datasets

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[Any, Any],
        *,
        where: str,
        base_dir: Path,
        default_name: str | None = None,
        root: Path | None = None,
        positions: Mapping[str, str] | None = None,
    ) -> Suite:
        """Create a suite from the keys of a marker or of a YAML document.

        Args:
            where: location of the declaration, for messages.
            base_dir: base of relative paths.
            default_name: its name if the mapping gives none.
            root: if given (YAML), nothing outside this directory is read or run.
            positions: a value's path (``model[1].stop``) to its ``file:line:column``.

        Raises:
            SuiteError: a key is unknown, missing, invalid or contradicts another; one line per problem.
        """
        suite = cls.__new__(cls)
        declaration = Declaration(where, base_dir, root, default_name, positions or {})
        problem = problem_of(partial(_declare, suite, mapping, declaration))
        if problem is not None:
            del mapping
            raise problem
        return suite

    @property
    def where_declared(self) -> str:
        """For messages: file, line and test."""
        return self.declaration.where

    @property
    def base_dir(self) -> Path:
        """Base of relative paths."""
        return self.declaration.base_dir

    @property
    def root(self) -> Path | None:
        """If given, nothing outside this directory is read or run for this suite."""
        return self.declaration.root

    @property
    def aggregator(self) -> Aggregate:
        """The function that ``aggregate`` names, from the examples' values to the suite's."""
        return aggregator(self.aggregate, self.base_dir, self.root)

    def at(self, key: str) -> str:
        """Location of a key: ``file:line:column`` in YAML, else that of the suite."""
        return self.declaration.positions.get(key, self.declaration.where)

    def load(self, *, offline: bool = False, max_bytes: int | None = None) -> Split:
        """Read the data, check the templates against its columns, and split it.

        Args:
            offline: ``hf:`` datasets use local copies only.
            max_bytes: limit for unpacked data files; default: 50 MB.

        Raises:
            SuiteError: the data cannot be read, lack a column, or have duplicates in tuning and test rows.
        """
        try:
            dataset = load(
                self.dataset,
                base_dir=self.base_dir,
                root=self.root,
                where=self.where,
                needed=self._needed,
                columns=self.columns,
                delimiter=self.delimiter,
                offline=offline,
                max_bytes=max_bytes,
            )
            self._check_groups(dataset)
            divided = split(
                dataset,
                self.tune_size,
                self.test_size,
                method=self.split,
                shuffle=self.shuffle,
                seed=self.seed,
                stratify=self.stratify,
                prompt_columns=self._prompt_columns,
                duplicates=self.duplicates,
            )
        except SuiteError as error:
            raise SuiteError(f"{self.at('dataset')}: {error}") from error.__cause__
        self._check_prompts(dataset)
        if self.task is not None:
            self._check_task(self.task, dataset.columns)
        return divided

    @property
    def _templates(self) -> Sequence[Any]:
        return [*self.space.templates, *(baseline.template for baseline in self.baselines)]

    @property
    def _prompt_columns(self) -> frozenset[str]:
        """The columns used in prompts; empty, meaning all, if a function decides."""
        if any(template.is_function for template in self.space.templates):
            return frozenset()
        return frozenset(name for template in self.space.templates for name in template.fields)

    def _needed(self, columns: Sequence[str]) -> frozenset[str]:
        for template in self._templates:
            template.check(columns)
        for key, column in (("stratify", self.stratify), ("group_by", self.group_by)):
            if column is not None and column not in columns:
                raise SuiteError(
                    f"{key} is {column!r}{did_you_mean(column, columns)}; the columns are {listed(columns)}"
                )
        fields = frozenset(name for template in self._templates for name in template.fields)
        if self.task is not None:
            fields |= {name for name, needed in self.task.parameters.items() if needed and name in columns}
        return fields | reference_columns(self.grader, columns)

    def _check_prompts(self, dataset: Dataset) -> None:
        """Refuse a prompt that does not depend on the row: any result would be luck."""
        if self.allow_constant_prompt or self.task is not None:
            return
        for template in self._templates:
            if _is_constant(template, dataset.examples):
                raise SuiteError(
                    f"{self.at(template.kind)}: the {template.kind} {shown(template.label, 60)} is the same for every row; "
                    f"name a column in it, as in {{{dataset.columns[0]}}} (the columns are {listed(dataset.columns)}), "
                    "or set allow_constant_prompt=True if this is intended"
                )

    def _check_task(self, task: Task, columns: Sequence[str]) -> None:
        """Check that columns and configuration keys fill the task's parameters."""
        keys = [
            {*(["model"] if model else []), *self.space.for_model(model), *({template.kind} - {"task"})}
            for model in self.space.models
            for template in self.space.templates
        ]
        try:
            task.check(columns, sorted(set.intersection(*keys)))
        except SuiteError as error:
            raise SuiteError(f"{self.at('task')}: {error}") from None

    def _check_groups(self, dataset: Dataset) -> None:
        if self.group_by is None:
            return
        groups = sorted({str(example.row.get(self.group_by)) for example in dataset.examples})
        for gate in self.thresholds:
            for group in gate.groups:
                if group not in groups:
                    raise SuiteError(
                        f"{gate.key} names the group {shown(group)}{did_you_mean(group, groups)}; "
                        f"{self.group_by} has {listed(groups)}"
                    )


def reference_columns(grader: Any, columns: Sequence[str]) -> frozenset[str]:
    """The columns that a grader reads its reference from, as far as its declaration shows."""
    if isinstance(grader, (list, tuple)):
        return frozenset(name for item in grader for name in reference_columns(item, columns))
    if isinstance(grader, Mapping) and len(grader) == 1:
        [(word, options)] = grader.items()
        named = options.get("reference") if isinstance(options, Mapping) else None
        if isinstance(named, str):
            return frozenset({named})
        return frozenset() if word in _WITHOUT else _first(columns)
    if callable(grader):
        named = _named(grader)
        return frozenset(name for name in named if name in columns) if named else _first(columns)
    return frozenset() if grader in _WITHOUT else _first(columns)


def _first(columns: Sequence[str]) -> frozenset[str]:
    return frozenset([name for name in REFERENCE_COLUMNS if name in columns][:1])


def _named(function: Callable[..., Any]) -> Iterable[str]:
    """The columns that a grading function requires; its first argument is the responses."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):  # a builtin without a signature
        return ()
    return [p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _is_constant(template: Template, examples: Sequence[Example]) -> bool:
    """Whether a template does not depend on the row; a function is called on several rows to find out."""
    if not template.is_function:
        return not template.fields
    if template.fields or len(examples) < 2:
        return False
    first = template.render(examples[0].row)
    return all(template.render(example.row) == first for example in islice(examples, 1, None))


def _check_enough(space: Space | None, metrics: Iterable[str], problems: Problems) -> None:
    """Check that every ``n`` that a search may choose gives enough responses for k."""
    needed = {name: int(match[2]) for name in metrics if (match := RELIABILITY.fullmatch(name))}
    if space is None or not needed:
        return
    least = min(n_bounds(space.for_model(model).get("n"))[0] for model in space.models)
    name, most = max(needed.items(), key=lambda item: item[1])
    if least < most:
        problems.add(
            f"may be {least}, but {name} needs {most} responses per row; give at least n={most}, "
            f"as in n=randint({most}, {most + 5})",
            "n",
        )


def _declare(suite: Suite, mapping: Mapping[Any, Any], declaration: Declaration) -> None:
    problems = Problems()
    values = read_keys(mapping, problems)
    if values["name"] is None and declaration.default_name is not None:
        values["name"] = problems.attempt(check_name, declaration.default_name, path=("name",))
    values["thresholds"] = read_thresholds(mapping, values, problems)
    if values["dataset"] is not None:
        problems.attempt(check_source, values["dataset"], declaration.base_dir, declaration.root, path=("dataset",))
    problems.attempt(aggregator, values["aggregate"], declaration.base_dir, declaration.root, path=("aggregate",))
    if values["task"] is not None:
        values["task"] = problems.attempt(
            Task.of, values["task"], declaration.base_dir, declaration.root, path=("task",), default=values["task"]
        )
    values["space"] = space = read_space(mapping, values, declaration, problems)
    if space is not None:
        values["baselines"] = read_baselines(values, space, declaration, problems)
        values["cascade"] = problems.attempt(
            read_cascade, values["cascade"], space.models, declaration.base_dir, declaration.root, path=("cascade",)
        )
    _check_enough(space, (values["metric"] or "", *(gate.metric for gate in values["thresholds"])), problems)
    check_contradictions(values, problems)
    problems.raise_any(declaration)
    for name in Suite.__slots__:
        object.__setattr__(suite, name, declaration if name == "declaration" else values[name])
