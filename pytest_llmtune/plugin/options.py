"""Command-line options, ini keys and environment variables."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_llmtune.settings import Mode, Settings


_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def boolean(text: str) -> bool:
    if text.strip().lower() in _TRUE:
        return True
    if text.strip().lower() in _FALSE:
        return False
    raise ValueError(f"is {text!r}; valid: {', '.join(_TRUE)}, {', '.join(_FALSE[1:])}")


def pruning(text: str) -> str | None:
    """Parse ``show`` or ``yes``; None for false in an ini file or the environment."""
    word = text.strip().lower()
    if word in _FALSE:
        return None
    if word == "show" or word in _TRUE:
        return "show" if word == "show" else "yes"
    raise ValueError(f"is {text!r}; valid: nothing or show, to look; yes, to remove. It takes no paths")


def one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is {text!r}; valid: {', '.join(choices)}")
        return text

    return parse


def age(text: str) -> Any:
    """Parse ``90d`` or ``90d:fail``."""
    from pytest_llmtune.settings import MaxAge

    given, _, word = text.strip().partition(":")
    days = given.removesuffix("d")
    if not days.isdecimal() or not 0 < int(days) < 100_000 or word not in ("", "fail"):
        raise ValueError(f"is {text!r}; valid: a number of days such as 90d, or 90d:fail")
    return MaxAge(int(days), word == "fail")


def number(kind: Callable[[str], Any], what: str, most: float | None = None) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
            valid = 0 < value < 1e12 and (most is None or value <= most)
        except (ValueError, ArithmeticError):  # Decimal("nan") has no order
            valid = False
        if not valid:
            limit = "" if most is None else f", at most {most:,}"
            raise ValueError(f"is {text!r}; valid: {what} above 0{limit}")
        return value

    return parse


def page(text: str) -> str:
    """A directory, or an HTML file."""
    name = text.replace("\\", "/").rpartition("/")[2]
    ending = name.rpartition(".")[2].lower() if "." in name.lstrip(".") else ""
    if ending not in ("", "html", "htm") and not os.path.isdir(text):  # noqa: PTH112
        raise ValueError(f"is {text!r}; valid: a directory, or a file that ends in .html")
    return text


def fraction(text: str) -> Any:
    found = number(Decimal, "a number")(text)
    if found > 1:
        raise ValueError(f"is {text!r}; valid: a number above 0, at most 1")
    return found


def shard(text: str) -> Any:
    from pytest_llmtune.types import Shard

    return Shard.parse(text)


def engine(text: str) -> str | None:
    """The name and address of a registered engine; None for this process."""
    if text == "local":
        return None
    names = registered("engines")
    if text.partition("://")[0] not in names or text.endswith("://"):
        valid = ["local", *(word for name in names for word in (name, f"{name}://HOST:PORT"))]
        raise ValueError(f"is {text!r}; valid: {', '.join(valid)}")
    return text


def plugin_of(kind: str) -> Callable[[str], str]:
    """Parse ``NAME`` or ``NAME:TARGET``, with the name of another package's entry point."""

    def parse(text: str) -> str:
        names = registered(kind)
        if text.partition(":")[0] not in names:
            raise ValueError(f"is {text!r}; valid: {', '.join(names) or 'nothing, because no package registers one'}")
        return text

    return parse


def registered(kind: str) -> list[str]:
    from pytest_llmtune._util.plugins import installed

    return sorted({entry.name for entry in installed(kind)})


def prices(lines: str) -> dict[str, dict[str, str]]:
    """One model per line: ``MODEL input=USD output=USD [cached_input=USD] [cache_write=USD]``, per 1M tokens.

    Or ``MODEL model=NAME``, where it is another name of that model.
    """
    prices: dict[str, dict[str, str]] = {}
    for line in filter(None, (line.strip() for line in lines.splitlines())):
        model, *pairs = line.split()
        price = dict(pair.partition("=")[::2] for pair in pairs)
        other_name = price.keys() == {"model"} and price["model"]
        known = {"input", "output", "cached_input", "cache_write"}
        if not other_name and not {"input", "output"} <= price.keys() <= known:
            raise ValueError(
                f"has the line {line!r}; valid: MODEL input=USD output=USD [cached_input=USD] [cache_write=USD] "
                "per 1M tokens, or MODEL model=NAME"
            )
        prices[model] = price
    return prices


def lines(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.splitlines())))


def names(text: str) -> tuple[str, ...]:
    return lines(text.replace(",", "\n"))


def models(text: str) -> tuple[str, ...]:
    """Parse a list of models; without one, a migration would be a plain replay."""
    found = names(text)
    if not found:
        raise ValueError(f"is {text!r}; valid: names of models, separated by commas")
    return found


_FIXTURES = frozenset({"llmtune", "tuned_config", "llm_client", "async_llm_client"})


class Option:
    """An option with its three names.

    Args:
        parse: raises ValueError with the valid values.
        metavar: None for a flag.
        many: whether the ini key has one value per line; elsewhere, values are separated by commas.
        bare: value of the option if given without one; None: it needs one.
    """

    # no dataclass and no named tuple, which take longer to create than all options
    __slots__ = ("bare", "flag", "help", "key", "many", "metavar", "name", "parse", "variable")

    def __init__(
        self,
        name: str,
        parse: Callable[[str], Any],
        help: str,  # noqa: A002  # as pytest calls it
        metavar: str | None = None,
        *,
        many: bool = False,
        bare: str | None = None,
    ) -> None:
        self.name, self.parse, self.help, self.metavar, self.many, self.bare = name, parse, help, metavar, many, bare
        self.flag = f"--llm-{name}"
        self.key = f"llmtune_{name.replace('-', '_')}"
        self.variable = self.key.upper()


OPTIONS = (
    Option("tune", boolean, "search for the best configuration of the selected suites; write lock file and recording"),
    Option("tune-dry-run", boolean, "print the maximum cost of a search, and what is cached; sends no request"),
    Option(
        "record",
        one_of("missing", "all"),
        "missing: record requests without a recording, and drop stale ones; all: record everything again",
        "missing|all",
    ),
    Option("live", boolean, "request new answers without reading or writing recordings, and gate against the baseline"),
    Option("accept", boolean, "make today's replayed result the baseline"),
    Option(
        "choose",
        number(int, "a position"),
        "lock the K-th configuration of the Pareto front that prefer='pareto' found; 1 is the best",
        "K",
    ),
    Option(
        "migrate",
        models,
        "send the locked prompt and parameters to these models, and compare their answers with the recording; for a "
        "parameter of a task: NAME=MODEL. With --llm-accept, lock the cheapest model that keeps the quality; with --llm-tune, "
        "tune each model",
        "MODEL,...",
    ),
    Option("concurrency", number(int, "a number of requests", 10_000), "requests in flight (default 32)", "N"),
    Option("base-url", str, "the OpenAI-compatible server (default: OPENAI_BASE_URL)", "URL"),
    Option("endpoints", str, "a YAML or JSON file, or JSON text, listing endpoints in order of failover", "FILE"),
    Option(
        "timeout", number(float, "a number of seconds"), "timeout of one request in seconds (default 60)", "SECONDS"
    ),
    Option(
        "deadline",
        number(float, "a number of seconds"),
        "time limit in seconds for all requests of a suite (default: none)",
        "SECONDS",
    ),
    Option("batch", boolean, "use OpenAI's Batch API, at its price: cheaper, answered within a day"),
    Option("batch-price", fraction, "price of a batch, as a fraction of the normal price (default 0.5)", "PART"),
    Option(
        "engine",
        engine,
        "where requests are sent and graded: this process, or a Ray cluster (extra 'ray')",
        "local|ray[://ADDRESS]",
    ),
    Option(
        "source",
        plugin_of("sources"),
        "send requests to an installed package instead of over HTTP; the name of its entry point",
        "NAME",
    ),
    Option(
        "max-spend", number(Decimal, "a number of USD"), "limit in USD for the whole run, in every paid mode", "USD"
    ),
    Option(
        "stop-early",
        number(float, "a probability", 0.5),
        "with --llm-live: send rows in random order, and stop as soon as the verdict is clear; ERROR is the highest probability "
        "that all rows would give another verdict, such as 0.05",
        "ERROR",
    ),
    Option(
        "prices",
        prices,
        "USD per 1M tokens, one model per line: MODEL input=USD output=USD; or, for another name: MODEL model=NAME",
        "LINES",
        many=True,
    ),
    Option(
        "redact",
        lines,
        "regular expressions whose matches are never written to a file, one per line",
        "REGEX",
        many=True,
    ),
    Option(
        "allow-hosts",
        lines,
        "hosts of your own services that tests may reach while the network is blocked: NAME[:PORT], patterns with *",
        "HOST",
        many=True,
    ),
    Option(
        "ignore-hosts",
        lines,
        "how requests to other services than models are handled, one host per line: HOST[:PORT][/PATH] [pass|record|refuse]",
        "LINES",
        many=True,
    ),
    Option(
        "block-network",
        one_of("marked", "all"),
        "which tests have their network blocked in plain pytest: those that use the plugin (default), or all",
        "marked|all",
    ),
    Option("isolate", boolean, "plain pytest: run without a network, by a Linux network namespace"),
    Option("max-age", age, "warn of recordings that are older (90d), or fail (90d:fail)", "DAYS"),
    Option("trust-hosts", names, "hosts that YAML suites and .env may send requests and keys to", "HOST", many=True),
    Option(
        "allow-code",
        names,
        "YAML suites that may run code: functions of the project, and the python grader",
        "SUITE",
        many=True,
    ),
    Option("report", page, "write the HTML report to this file or directory (needs the extra 'report')", "PATH"),
    Option("json", str, "write the results of all suites as JSON", "FILE"),
    Option("comment", str, "write a comment for a pull request, in Markdown, to this file", "FILE"),
    Option(
        "reporter",
        plugin_of("reporters"),
        "write another package's report; the name of its entry point",
        "NAME[:TARGET]",
    ),
    Option(
        "part-size", number(float, "a number of megabytes"), "split a larger recording into parts (default 20)", "MB"
    ),
    Option(
        "max-data", number(float, "a number of megabytes"), "limit for a suite's unpacked data files (default 50)", "MB"
    ),
    Option("compress", boolean, "compress the parts of a split recording (needs the extra 'zstd')"),
    Option(
        "share-rows",
        number(int, "a number of rows"),
        "with -n, workers share suites with more rows (default 10000)",
        "N",
    ),
    Option("shard", shard, "replay a stable part of every suite's rows; --llm-merge judges all parts together", "K/N"),
    Option("merge", str, "judge the JSON results of all shards in this directory as one run", "DIR"),
    Option(
        "init",
        str,
        "write a commented starter suite, in YAML and in Python, for a data file: pytest --llm-init NAME FILE; "
        "'demo' without a file: a small project that needs no key",
        "NAME",
    ),
    Option(
        "prune",
        pruning,
        "show recordings and lock files of removed suites; yes: remove them (runs no test; give no paths, -k or -m)",
        "yes",
        bare="show",
    ),
)

MARKERS = (
    "llmtune(dataset=..., prompt=..., model=..., grader=..., **keys): declare a suite; "
    "the test uses the fixture 'llmtune'",
    "llm_replay(max_cost=None, max_calls=None, match_on=None, keep_retries=False): record and replay every LLM call of "
    "the test and its fixtures that uses Python's HTTP clients, gate its cost, and block the network for everything "
    "else; clients with their own sockets (curl_cffi, pycurl, gRPC, child processes) are blocked only by llmtune_isolate",
    "llm_suite(name): the suite whose locked configuration the fixture 'tuned_config' gives",
)


def declare(parser: pytest.Parser) -> None:
    """Declare all options to pytest, on the command line and as ini keys."""
    group = parser.getgroup("llmtune", "LLM inference configuration (pytest-llmtune)")
    for option in OPTIONS:
        if option.metavar is None:
            kind: dict[str, Any] = {"action": "store_const", "const": "true"}
        else:
            kind = {"metavar": option.metavar, **({"nargs": "?", "const": option.bare} if option.bare else {})}
        group.addoption(option.flag, dest=option.key, help=option.help, **kind)
        if option.many:
            parser.addini(option.key, option.help, type="linelist", default=None)
        else:
            parser.addini(option.key, option.help, type="string", default=None)


def _given(option: Option, config: pytest.Config) -> tuple[str, str, bool] | None:
    """Where the option was set, its text, and whether it overrides a suite's keys."""
    if (text := config.getoption(option.key)) is not None:
        return option.flag, text, True
    if (text := os.environ.get(option.variable)) is not None:
        return f"the environment variable {option.variable}", text, True
    if ini := config.getini(option.key):
        return f"the ini key {option.key}", "\n".join(ini) if isinstance(ini, list) else str(ini), False
    return None


def value_of(name: str, config: pytest.Config) -> Any:
    """The effective value of an option, or None; UsageError with source, text and valid values if it is invalid."""
    option = next(option for option in OPTIONS if option.name == name)
    given = _given(option, config)
    if given is None:
        return None
    where, text, _ = given
    try:
        value = option.parse(text)
    except ValueError as error:
        raise pytest.UsageError(_clean(f"{where} {error}")) from None
    if name == "migrate" and any(_clean(model) != model for model in value):
        raise pytest.UsageError(f"{where} holds a key; valid: names of models")  # they are in every report
    return value


def _clean(text: str) -> str:
    """A message without keys, whatever was put into the wrong place."""
    from pytest_llmtune.redaction.redactor import Redactor

    return Redactor.from_environment().clean_text(text)


def _mode(config: pytest.Config) -> Mode:
    from pytest_llmtune.settings import Mode as Modes

    names = {name for name in ("tune", "live", "accept", "tune-dry-run", "migrate") if value_of(name, config)}
    if "migrate" in names and not {"tune", "accept"} <= names:  # either says what becomes of a model that may take over
        names -= {"tune", "accept"}
    if record := value_of("record", config):
        names.add(f"record={record}")
    chosen = [mode for mode in Modes if mode.value in names]
    if len(chosen) > 1:
        raise pytest.UsageError(f"{' and '.join(mode.option for mode in chosen)} cannot be combined; choose one")
    mode = chosen[0] if chosen else Modes.REPLAY
    if value_of("choose", config) is not None:
        if mode not in (Modes.REPLAY, Modes.RECORD_MISSING, Modes.RECORD_ALL):
            raise pytest.UsageError(
                f"--llm-choose and {mode.option} cannot be combined; it goes with --llm-record only"
            )
        mode = Modes.ACCEPT if mode is Modes.REPLAY else mode
    _check_engine(config)
    if value_of("prune", config) and _has_workers(config):
        raise pytest.UsageError("--llm-prune and -n cannot be combined: no test runs; leave out -n")
    _check_shards(config, mode)
    return mode


def _has_workers(config: pytest.Config) -> bool:
    """Whether xdist runs the tests in several processes, of which this may be one."""
    return hasattr(config, "workerinput") or bool(config.getoption("numprocesses", None))


def _check_shards(config: pytest.Config, mode: Mode) -> None:
    """Check that shards are only replayed, or requested live: lock files and recordings need all rows."""
    given = [name for name in ("shard", "merge") if value_of(name, config) is not None]
    if given and mode.option and (given[0] == "merge" or mode.value != "live"):
        given.append(mode.option.removeprefix("--llm-"))
    if value_of("shard", config) is not None and value_of("stop-early", config) is not None:
        raise pytest.UsageError(
            "--llm-shard and --llm-stop-early cannot be combined: a shard does not know the others' rows"
        )
    if len(given) > 1:
        raise pytest.UsageError(
            f"--llm-{given[0]} and --llm-{given[1]} cannot be combined: a shard is replayed, or asked with --llm-live; "
            "shards are then merged, and lock files and recordings are written, by a run without --llm-shard"
        )


def _check_engine(config: pytest.Config) -> None:
    """Refuse options that conflict with a cluster, which distributes the work itself."""
    if value_of("engine", config) is None:
        return
    if _has_workers(config):
        raise pytest.UsageError(
            "--llm-engine=ray and -n cannot be combined: the cluster distributes the work; leave out -n"
        )
    if value_of("batch", config):
        raise pytest.UsageError(
            "--llm-engine=ray and --llm-batch cannot be combined: a batch has no work to distribute"
        )


def _check_variables() -> None:
    """Refuse a misspelt variable, which would be ignored: a limit that is not set limits nothing. pytest warns of ini keys."""
    from pytest_llmtune._util.text import did_you_mean

    variables = {"LLMTUNE_ISOLATION", *(option.variable for option in OPTIONS)}
    for name in sorted(name for name in os.environ if name.startswith("LLMTUNE_") and name not in variables):
        if hint := did_you_mean(name, variables, cutoff=0.85):
            raise pytest.UsageError(f"the environment variable {name} is unknown{hint}")


def settings_of(config: pytest.Config) -> Settings:
    """All options as one frozen value; UsageError if a value is invalid, or two modes were chosen."""
    from pytest_llmtune.settings import Settings

    _check_variables()
    fields: dict[str, Any] = {}
    forced = set()
    for option in OPTIONS:
        name, value, given = option.name.replace("-", "_"), value_of(option.name, config), _given(option, config)
        if name in Settings.__slots__ and value is not None:
            fields[name] = value
        if given is not None and given[2]:
            forced.add(name)
    fields.setdefault("base_url", os.environ.get("OPENAI_BASE_URL") or None)
    return Settings(mode=_mode(config), root=config.rootpath, forced=frozenset(forced), **fields)


def any_given(config: pytest.Config) -> bool:
    """Whether any option is set, so that it is validated even without suites."""
    return any(_given(option, config) is not None for option in OPTIONS)


def uses_llmtune(item: pytest.Item) -> bool:
    """Whether a test uses the plugin: it has one of our markers or fixtures."""
    if any(marker.name in ("llmtune", "llm_replay") for marker in item.iter_markers()):
        return True
    return not _FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
