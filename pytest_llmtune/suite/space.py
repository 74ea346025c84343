"""The search space of a suite."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.functions import qualified_name
from pytest_llmtune._util.jsonhash import build, digest
from pytest_llmtune._util.text import InvalidError, listed, shown
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.suite.cascade import CascadeSteps, read_accept, steps_of
from pytest_llmtune.suite.declaration import MISSING
from pytest_llmtune.suite.domains import (
    LISTS,
    PARAMETERS,
    TEMPERATURE_OR_TOP_P,
    Choice,
    Constant,
    Domain,
    LogRandInt,
    Models,
    OneOf,
    RandInt,
    Range,
    Uniform,
    check_parameter,
    parse_domain,
    parse_param,
)
from pytest_llmtune.suite.keys import PARAMETER_KEYS
from pytest_llmtune.suite.prompts import (
    TaskTemplate,
    Template,
    one_template,
    read_templates,
    several,
    task_request,
)
from pytest_llmtune.suite.propose import Propose, read_prompt, text_of
from pytest_llmtune.suite.task import RESERVED, Task
from pytest_llmtune.types import Accept, Escalation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_llmtune.suite.declaration import Declaration, Problems
    from pytest_llmtune.types import CompletionRequest, Example, Row


_MOST_ANSWERS = 10_000


@dataclass(frozen=True)
class Config:
    """Everything that a request depends on besides the row.

    Raises:
        SuiteError: ``n`` is not a number of answers; it may be from an edited lock file.
    """

    params: Mapping[str, Any]
    """OpenAI parameters, including ``model`` and ``n``; None values are omitted."""
    template: Template
    accept: Accept | None = None
    """In a cascade: when this step's answers are accepted; otherwise ``following`` is used."""
    following: Config | None = None

    def __post_init__(self) -> None:
        if (self.accept is None) != (self.following is None):
            raise SuiteError("a cascade's step has both accept and a next step, and its last step neither")
        object.__setattr__(self, "params", {name: value for name, value in self.params.items() if value is not None})
        n = self.params.get("n", 1)
        if isinstance(n, bool) or not isinstance(n, (int, float)) or n != n // 1 or not 1 <= n <= _MOST_ANSWERS:
            raise SuiteError(f"n is {shown(n)}; valid: a whole number from 1 to {_MOST_ANSWERS:,}")

    @property
    def model(self) -> str:
        """Empty where a task has its models elsewhere."""
        return str(self.params.get("model", ""))

    @property
    def steps(self) -> tuple[Config, ...]:
        """The steps of a cascade, cheapest first; for any other configuration, only itself."""
        return (self, *(self.following.steps if self.following else ()))

    @property
    def models(self) -> tuple[str, ...]:
        """The models of all steps."""
        return tuple(dict.fromkeys(step.model for step in self.steps if step.model))

    @property
    def n(self) -> int:
        """Number of answers per example; in a cascade, in its first step."""
        return int(self.params.get("n", 1))

    @property
    def runs_task(self) -> bool:
        """Whether examples are answered by runs of a task instead of completions of a prompt."""
        return isinstance(self.template, TaskTemplate)

    def request(self, row: Row) -> CompletionRequest:
        """The request for a row.

        Raises:
            SuiteError: the template does not fit the row, or a parameter is not representable in JSON.
        """
        body = {**self.params, "messages": list(self.template.render(row))}
        request = build(body, self.n)
        if self.accept is None or self.following is None:
            return request
        return replace(request, escalation=Escalation(self.accept, self.following.request(row)))

    def read_by(self, grader: Any, cascade: bool | CascadeSteps = True) -> Config:
        """A cascade whose votes use this grader and whose answers are refused by this function, as declared.

        Any other configuration is unchanged.

        Raises:
            SuiteError: its function is another.
        """
        if self.accept is None or self.following is None:
            return self
        plain = grader if isinstance(grader, (str, Mapping)) else None
        own = steps_of(cascade).accept.function
        if (function := self.accept.function) is not None:
            if _named(function) != _named(own):
                raise SuiteError(
                    f"the locked cascade uses the function {shown(_named(function))}, which the suite does not have"
                )
            function = own
        accept = replace(self.accept, grader=plain, function=function)
        return replace(self, accept=accept, following=self.following.read_by(grader, cascade))

    def request_for(self, example: Example, earlier: int = 0) -> CompletionRequest:
        """The request for an example: completions of its prompt, or runs of its task after ``earlier`` ones of a cascade."""
        if not isinstance(self.template, TaskTemplate):
            return self.request(example.row)
        request = task_request(self.params, self.n, self.template, example, earlier)
        if self.accept is None or self.following is None:
            return request
        return replace(
            request, escalation=Escalation(self.accept, self.following.request_for(example, earlier + self.n))
        )

    def to_lock(self) -> dict[str, Any]:
        """Parameters, and ``prompt`` or ``messages`` with the template.

        A cascade is ``{"cascade": [step, ...]}``; all steps but the last have ``accept``.
        """
        plain = {**self.params, self.template.kind: self.template.to_lock()}
        if self.following is None or self.accept is None:
            return plain
        own = {**plain, "accept": _rules(self.accept)}
        rest = self.following.to_lock()
        return {"cascade": [own, *rest.get("cascade", [rest])]}

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex): equal for configurations with the same requests."""
        parts: list[Any] = [self.params, self.template.fingerprint]
        if self.following is not None and self.accept is not None:
            rules = {name: rule for name, rule in _rules(self.accept).items() if name in ("schema", "function")}
            parts += [[self.accept.margin, self.accept.regex, *([rules] if rules else [])], self.following.key]
        return digest(parts, spaced=True)

    @property
    def label(self) -> str:
        """One-line summary."""
        own = ", ".join(f"{name}={shown(value, 40)}" for name, value in self.params.items())
        if self.following is None or self.accept is None:
            return own
        rules = [f"not {name}" for name in _rules(self.accept) if name in ("schema", "function")]
        rules += [f"not {self.accept.regex!r}"] if self.accept.regex else []
        return f"{own}; if {' or '.join([f'lead < {self.accept.margin:g}', *rules])}: {self.following.label}"

    @classmethod
    def from_lock(cls, mapping: Mapping[str, Any], templates: Sequence[Template] = ()) -> Config:
        """Read what ``to_lock`` wrote. Functions are looked up in ``templates``, never imported by name.

        Raises:
            SuiteError: no model (a task needs none), not exactly one of prompt and messages, or an unknown function.
        """
        if "cascade" in mapping:
            return cls._cascade(mapping, templates)
        kinds = mapping.keys() & {"prompt", "messages", "task"}
        runs_task = any(isinstance(template, TaskTemplate) for template in templates)
        if len(kinds) != 1 or not isinstance(mapping.get("model", "" if runs_task else None), str):
            raise SuiteError(
                f"a configuration has a model, and one of prompt and messages, or a task; this one has {listed(mapping)}"
            )
        [kind] = kinds
        params = {name: value for name, value in mapping.items() if name != kind}
        return cls(params, _template(kind, mapping[kind], templates))

    @classmethod
    def _cascade(cls, mapping: Mapping[str, Any], templates: Sequence[Template]) -> Config:
        """Read the linked steps of ``{"cascade": [...]}``."""
        steps = mapping["cascade"]
        if len(mapping) > 1 or not isinstance(steps, (list, tuple)) or len(steps) < 2:
            raise SuiteError(f"a cascade is a list of two or more steps, and nothing else; got {shown(mapping)}")
        if not all(isinstance(step, Mapping) and "cascade" not in step for step in steps):
            raise SuiteError("each step of a cascade must be a configuration")
        if "accept" in steps[-1]:
            raise SuiteError("the last step of a cascade must not have accept: there is no further step")
        found = cls.from_lock(steps[-1], templates)
        for step in reversed(steps[:-1]):
            own = cls.from_lock({name: value for name, value in step.items() if name != "accept"}, templates)
            found = cls(own.params, own.template, read_accept(step.get("accept")), found)
        return found


def _rules(accept: Accept) -> dict[str, Any]:
    """The rules that it has, as in the lock file."""
    rules = {name: getattr(accept, name) for name in ("margin", "regex", "grader", "schema", "function")}
    rules["function"] = _named(accept.function)
    return {name: rule for name, rule in rules.items() if rule is not None}


def _named(function: Any) -> Any:
    return {"callable": qualified_name(function)} if callable(function) else function


def _template(kind: str, locked: Any, templates: Sequence[Template]) -> Template:
    for template in templates:
        if template.kind == kind and template.to_lock() == locked:
            return template
    if (task := next((each.task for each in templates if isinstance(each, TaskTemplate)), None)) is not None:
        return TaskTemplate("messages" if kind == "messages" else "prompt", locked, task)
    if kind == "task":
        raise SuiteError(f"the configuration is one of the task {shown(locked)}; give the suite it belongs to")
    if _holds_function(locked):
        raise SuiteError(f"the locked {kind} is the function {shown(locked)}, which the suite does not have (any more)")
    return Template.prompt(locked) if kind == "prompt" else Template.messages(locked)


def _holds_function(locked: Any) -> bool:
    if isinstance(locked, Mapping):
        return locked.keys() == {"callable"} or any(_holds_function(value) for value in locked.values())
    return isinstance(locked, (list, tuple)) and any(_holds_function(item) for item in locked)


DEFAULTS: Mapping[str, Domain] = {
    TEMPERATURE_OR_TOP_P: OneOf(({"temperature": Uniform(0, 2)}, {"top_p": Uniform(0, 1)})),
    "max_tokens": LogRandInt(50, 1000),
    "n": RandInt(1, 100),
}
"""Default domains besides model and prompt, those of AutoGen's ``ChatCompletion.tune``."""

_REPLACES: Mapping[str, tuple[str, ...]] = {
    "temperature": (TEMPERATURE_OR_TOP_P,),
    "top_p": (TEMPERATURE_OR_TOP_P,),
    TEMPERATURE_OR_TOP_P: ("temperature", "top_p"),
    "max_tokens": ("max_completion_tokens",),
    "max_completion_tokens": ("max_tokens",),
}
"""Default parameters that a given one removes, unless they are given too."""
_LENGTHS = ("max_tokens", "max_completion_tokens")


def overlaid(base: Mapping[str, Domain], overriding: Mapping[str, Domain]) -> dict[str, Domain]:
    """The domains of ``base`` overridden by those of ``overriding``."""
    # max_tokens=None leaves max_completion_tokens; temperature=None means: send neither temperature nor top_p
    retained = {name for name in _LENGTHS if overriding.get(name) == Constant(None)}
    replaced = {other for name in overriding.keys() - retained for other in _REPLACES.get(name, ())}
    return {name: domain for name, domain in base.items() if name not in replaced} | dict(overriding)


@dataclass(frozen=True, slots=True)
class Space:
    """All configurations that a search may try."""

    models: tuple[str, ...]
    """One that is empty where a task has its models elsewhere."""
    templates: tuple[Template, ...]
    parameters: Mapping[str, Domain] = field(default_factory=lambda: dict(DEFAULTS))
    """Domains by parameter, without model and template; ``temperature_or_top_p`` is a ``OneOf``."""
    conditions: Mapping[str, Mapping[str, Domain]] = field(default_factory=dict)
    """Overriding domains by model; ``Constant(None)``: the parameter is not sent to this model."""
    proposing: Propose | None = None
    """Writes more prompts during a search; None: no proposals."""
    shots: tuple[int, ...] = (0,)
    """Numbers of example rows in a prompt, to choose from."""

    def for_model(self, model: str) -> dict[str, Domain]:
        """The domains for one model, without parameters that are not sent to it."""
        domains = overlaid(self.parameters, self.conditions.get(model, {}))
        return {name: domain for name, domain in domains.items() if domain != Constant(None)}

    @property
    def runs_task(self) -> bool:
        """Whether examples are answered by runs of a task."""
        return any(isinstance(template, TaskTemplate) for template in self.templates)

    @property
    def is_constant(self) -> bool:
        """Whether there is only one configuration."""
        single = len(self.models) == 1 and len(self.templates) == 1 and len(self.shots) == 1 and not self.writes
        return single and all(domain.is_constant for domain in self.for_model(self.models[0]).values())

    @property
    def writes(self) -> bool:
        """Whether a search may choose prompts that the suite does not hold."""
        return self.proposing is not None or any(self.shots)

    @property
    def constant(self) -> Config:
        """The only configuration."""
        if not self.is_constant:
            raise SuiteError("the search space has several configurations")
        return self.first()

    def first(self, model: str | None = None) -> Config:
        """The untuned configuration: a model (default: the first), the first template, and all constants.

        Parameters with a choice are omitted, so that the server's default applies (n is then 1); but the answer's length is
        always limited, to the largest allowed value, to bound its cost.
        """
        model = self.models[0] if model is None else model
        domains = self.for_model(model)
        values = {  # a task has no defaults for missing parameters
            name: _simplest(domain) for name, domain in domains.items() if domain.is_constant or self.runs_task
        }
        lengths = {
            name: _longest(domains[name]) for name in _LENGTHS if name in domains and not domains[name].is_constant
        }
        return self.config({"model": model, **values, **lengths}, self.templates[0])

    def config(self, chosen: Mapping[str, Any], template: Template) -> Config:
        """The configuration for a point of the space: ``model`` and a value for every parameter of ``for_model``.

        A ``OneOf``'s value is the mapping of the chosen branch, whose parameters become top-level ones.
        """
        params: dict[str, Any] = {"model": chosen["model"] or None}
        for name, value in chosen.items():
            if name == TEMPERATURE_OR_TOP_P:
                params.update(value or {})
            elif name != "model":
                params[name] = value
        return Config(params, template)

    def models_of(self, config: Config) -> tuple[str, ...]:
        """The models that a configuration asks: of all steps, and those that a task has in its own parameters."""
        own = (
            str(step.params[name])
            for step in config.steps
            for name, domain in self.for_model(step.model).items()
            if isinstance(domain, Models) and name in step.params
        )
        return tuple(dict.fromkeys([*config.models, *own]))

    def why_not(self, config: Config) -> str | None:
        """Why a configuration is not in the space, as a phrase for messages; None if it is."""
        return next((reason for step in config.steps for reason in self._step_reasons(step)), None)

    def contains(self, config: Config) -> bool:
        """Whether a search may try this configuration."""
        return self.why_not(config) is None

    def _step_reasons(self, config: Config) -> Iterator[str]:
        if config.model not in self.models:
            valid = f"is not one of {listed(self.models)}" if any(self.models) else "is given, and the suite has none"
            yield f"the model {shown(config.params.get('model'))} {valid}"
            return
        if not self._has(config.template):
            yield f"the {config.template.kind} {shown(config.template.label, 60)} is not among the suite's"
        remaining = {name: value for name, value in config.params.items() if name != "model"}
        for name, domain in self.for_model(config.model).items():
            names = domain.names if isinstance(domain, OneOf) else {name}
            sent = {key: remaining.pop(key) for key in names & remaining.keys()}
            value = sent if isinstance(domain, OneOf) else sent.get(name)
            if not domain.contains(value):
                yield f"{name} is {shown(value)}, outside {shown(domain.to_plain())}"
        for name, value in remaining.items():
            yield f"{name} is {shown(value)}, which the suite does not send"

    def _has(self, template: Template) -> bool:
        """Whether it is one of the templates, or may have been made of one."""
        if template.fingerprint in {own.fingerprint for own in self.templates}:
            return True
        text = text_of(template)
        if text is None or not self.writes:
            return False
        return self.proposing is not None or text in {text_of(own) for own in self.templates}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the space, independent of order."""
        return self._digest(templates=sorted(template.fingerprint for template in self.templates))

    def admission(self, config: Config) -> str:
        """SHA-256 (hex) of a configuration's parameters and of those that may be chosen, without the prompts."""
        return self._digest(admitted=[step.params for step in config.steps])

    def _digest(self, **more: Any) -> str:
        plain: dict[str, Any] = {
            "models": sorted(self.models),
            "parameters": {
                model: {name: domain.to_plain() for name, domain in self.for_model(model).items()}
                for model in self.models
            },
            **more,
        }
        if self.proposing is not None:
            plain["propose"] = self.proposing.to_plain()
        if self.shots != (0,):
            plain["shots"] = self.shots
        return digest(plain, spaced=True)


def _simplest(domain: Domain) -> Any:
    """A constant's value, the first option of a choice, the lower bound of a range."""
    if isinstance(domain, OneOf):
        return {name: _simplest(inner) for name, inner in domain.branches[0].items()}
    if isinstance(domain, Choice):
        return domain.options[0]
    if isinstance(domain, Range):
        return int(domain.low) if domain.whole else domain.low
    return domain.value if isinstance(domain, Constant) else None


def _longest(domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return max((option for option in domain.options if option is not None), default=None)
    return int(domain.top) if isinstance(domain, Range) else None


_NOT_SENT = Constant(None)
_OWN = frozenset({"model", "messages", "stream", "stream_options", *PARAMETERS})
"""Parameters with their own key, which ``extra_body`` must not contain."""


class SuiteWarning(LLMTuneError, UserWarning):  # noqa: N818  # an error only under -W error
    """A declaration is valid, but probably a mistake."""


def read_space(
    mapping: Mapping[str, Any], values: Mapping[str, Any], declaration: Declaration, problems: Problems
) -> Space | None:
    """The search space; None if the problems leave none."""
    extra = values["extra_body"] or {}
    declared = _parameters({name: mapping[name] for name in PARAMETER_KEYS if name in mapping}, problems, ())
    for name in extra:
        if name in _OWN:
            problems.add("is a suite key; give it there", "extra_body", name)
    declared |= _parameters(extra, problems, ("extra_body",))
    own = _task_parameters(values, extra, problems)
    declared |= own
    _check_pairs(declared, problems, ())
    models, conditions = _models(values["model"], frozenset({*extra, *own}), problems)
    if values["model"] is None:
        _check_without_model(values["task"], own, problems)
    prompt = problems.attempt(read_prompt, values["prompt"], path=("prompt",))
    proposing = prompt if isinstance(prompt, Propose) else None
    given_prompt = list(proposing.seeds) if proposing is not None else prompt
    templates = read_templates({**values, "prompt": given_prompt}, declaration, problems)
    shots = values["shots"] or (0,)
    if values["task"] is not None and proposing is not None:
        problems.add("propose writes prompts that are sent from here; list those of a task", "prompt")
    elif proposing is not None and values["optimization_budget"] is None:
        problems.add("propose needs an optimization_budget, which includes the cost of the proposer", "prompt")
    if values["task"] is not None and any(shots):
        problems.add("are added to prompts that are sent from here; a task has its own", "shots")
    elif any(shots) and any(text_of(template) is None for template in templates):
        problems.add("precede a user message that is a format string; a function or a column is none", "shots")
    if problems.found:
        return None
    if all(declared.get(name, _NOT_SENT) != _NOT_SENT for name in ("temperature", "top_p")):
        both = "both temperature and top_p are given; it is usual to vary one (temperature_or_top_p)"
        warnings.warn(f"{declaration.where}: {both}", SuiteWarning, stacklevel=2)
    # the task decides which parameters its calls accept, and within which bounds
    domains = declared if values["task"] is not None else overlaid(DEFAULTS, declared)
    return Space(models, templates, domains, conditions, proposing, shots)


def _task_parameters(values: Mapping[str, Any], extra: Mapping[str, Any], problems: Problems) -> dict[str, Domain]:
    found: dict[str, Domain] = {}
    for name, raw in (values["params"] or {}).items():
        if values["task"] is None:
            problems.add("are passed to the function that task= names; there is none", "params")
            return {}
        if name in _OWN or name in PARAMETER_KEYS or name in extra or name in ("prompt", "task", *RESERVED):
            problems.add("is a reserved name; choose another", "params", name)
            continue
        domain = problems.attempt(parse_param, name, raw, path=("params", name))
        if domain is not None:
            found[name] = domain
    return found


def _check_without_model(task: Any, own: Mapping[str, Domain], problems: Problems) -> None:
    """Only a task has its models elsewhere; one that is given the whole configuration must find them in it."""
    has_models = any(isinstance(domain, Models) for domain in own.values())
    if task is None:
        problems.add(MISSING, "model")
    elif isinstance(task, Task) and "config" in task.parameters and not has_models:
        problems.add(
            f"is missing: the task {task.name} takes config, which names no model; give model=, or declare the parameter "
            "that is one, as in params={'planner_model': models(['small', 'big'])}",
            "model",
        )


def _parameters(declared: Mapping[str, Any], problems: Problems, path: tuple[str | int, ...]) -> dict[str, Domain]:
    domains = {name: problems.attempt(parse_domain, name, raw, path=(*path, name)) for name, raw in declared.items()}
    return {name: domain for name, domain in domains.items() if domain is not None}


def _check_pairs(declared: Mapping[str, Domain], problems: Problems, path: tuple[str | int, ...]) -> None:
    sent = {name for name, domain in declared.items() if domain != _NOT_SENT}
    if TEMPERATURE_OR_TOP_P in sent and sent & {"temperature", "top_p"}:
        problems.add("cannot be given together with temperature or top_p; choose one way", *path, TEMPERATURE_OR_TOP_P)
    if {"max_tokens", "max_completion_tokens"} <= sent:
        problems.add("cannot be given together with max_completion_tokens; servers refuse both", *path, "max_tokens")


def _models(
    raw: Any, extra: frozenset[str], problems: Problems
) -> tuple[tuple[str, ...], dict[str, dict[str, Domain]]]:
    if raw is None:
        return ("",), {}
    entries, listed = several(raw)
    if not entries:
        problems.add("is an empty list; valid: a model's name, or a list of names", "model")
    names: list[str] = []
    conditions: dict[str, dict[str, Domain]] = {}
    for index, entry in enumerate(entries):
        path: tuple[str | int, ...] = ("model", index) if listed else ("model",)
        parameters = dict(entry) if isinstance(entry, Mapping) else {"model": entry}
        name = parameters.pop("model", None)
        if not isinstance(name, str) or not name.strip():
            valid = "a model's name, or {'model': name, parameter: value, ...}"
            problems.add(f"is {shown(entry)}; valid: {valid}", *path)
        elif name in names:
            problems.add(f"is {shown(name)}, a duplicate", *path)
        else:
            names.append(name)
            for parameter in parameters:
                problems.attempt(check_parameter, parameter, extra, path=path)
            known = {parameter: raw for parameter, raw in parameters.items() if parameter in (*PARAMETER_KEYS, *extra)}
            domains = _parameters(known, problems, path)
            _check_pairs(domains, problems, path)
            conditions |= {name: domains} if domains else {}
    return tuple(names), conditions


def read_baselines(
    values: Mapping[str, Any], space: Space, declaration: Declaration, problems: Problems
) -> tuple[Config, ...]:
    """The configurations to evaluate alongside the winner."""
    read = [
        problems.attempt(_baseline, raw, values, space, declaration, path=("baselines", index))
        for index, raw in enumerate(values["baselines"] or ())
    ]
    return tuple(config for config in read if config is not None)


def _baseline(raw: Mapping[str, Any], values: Mapping[str, Any], space: Space, declaration: Declaration) -> Config:
    model = raw.get("model", space.models[0])
    if not isinstance(model, str) or ("model" in raw and not model.strip()):
        raise InvalidError(f"is {shown(model)}; valid: a model's name", "model")
    untuned = space.first(model)
    template = untuned.template
    overriding: dict[str, Any] = {}
    for name, value in raw.items():
        if name in ("prompt", "messages"):
            template = one_template(name, value, values, declaration)
        elif name != "model":
            check_parameter(name, {**values["extra_body"], **(values["params"] or {})})
            overriding |= _single(name, value)
    params = overlaid({name: Constant(value) for name, value in untuned.params.items()}, overriding)
    return Config({"model": model or None, **{name: domain.to_plain() for name, domain in params.items()}}, template)


def _single(name: str, raw: Any) -> Mapping[str, Domain]:
    """One value of a parameter, which may be a list if it accepts lists; of ``temperature_or_top_p``, one branch."""
    try:
        domain = Constant(raw) if isinstance(raw, list) and name in {"stop", *LISTS} else parse_domain(name, raw)
    except InvalidError as problem:
        raise problem.inside(name) from None
    found = domain.branches[0] if isinstance(domain, OneOf) and len(domain.branches) == 1 else {name: domain}
    if not all(isinstance(each, Constant) for each in found.values()):
        raise InvalidError(f"is {shown(raw)}; a baseline has one value per parameter", name)
    return found
