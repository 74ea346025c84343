"""Worlds to tune in: a bank of answers, drawn from as an OpenAI-compatible server would, and judged by a referee who sees it all.

The arena's bank holds recorded answers of real models (see arena.py). The others are made here from a seed: every row has a right
answer and wrong ones that attract, every model and prompt a strength, so that hard rows are hard for all and like configurations err alike.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_llmtune import Suite, lograndint, randint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_llmtune.suite import Config

__all__ = ["Samples", "Task", "World", "made_tasks"]

LETTERS = "ABCDEFGH"
TUNED = 40
"""Rows to tune on."""
_STYLE = re.compile(r"^\[style:(\w+)\]\n", re.MULTILINE)
_ORDERS = 64
"""Orders of a cell's answers that the referee averages over."""


@dataclass(frozen=True)
class Samples:
    """Answers of one model with one prompt and temperature to one row."""

    keys: NDArray[np.int64]
    """(answers,): index of the letter answered; -1: none could be read."""
    tokens: NDArray[np.int64]
    """(answers,): length."""
    prompt: int
    """Tokens of the prompt."""
    values: NDArray[np.float64] | None = None
    """(answers,): where an answer is worth a score and not right or wrong."""


class World:
    """A bank, by model, prompt style, row (from 0) and temperature."""

    rows: int
    right: NDArray[np.int64]
    """(rows,): index of the right letter."""

    def samples(self, model: str, style: str, row: int, heat: float) -> Samples:
        raise NotImplementedError

    def question(self, row: int) -> str:
        return f"Question {row}?"

    def problems(self, order: list[int]) -> list[dict[str, Any]]:
        return [{"id": row, "question": self.question(row), "answer": LETTERS[self.right[row]]} for row in order]


@dataclass
class Server:
    """Answers requests from a world, by seed; equal requests get fresh draws."""

    world: World
    seed: int
    requests: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.places = {self.world.question(row): row for row in range(self.world.rows)}

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        n, text = body.get("n") or 1, str(body["messages"][-1]["content"])
        style = _STYLE.search(text)
        assert style is not None
        heat = body.get("temperature", body.get("top_p", 1.0))
        found = self.world.samples(body["model"], style[1], self.places[text[style.end() :]], heat)
        canonical = json.dumps(body, sort_keys=True)
        repeat, self.seen[canonical] = self.seen[canonical], self.seen[canonical] + 1
        digest = hashlib.sha256(f"{self.seed}|{repeat}|{canonical}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        picked = rng.choice(len(found.keys), n, replace=n > len(found.keys))
        limit, choices, spent = body.get("max_tokens") or 10**9, [], 0
        for index, place in enumerate(picked):
            key, tokens = int(found.keys[place]), int(found.tokens[place])
            spent += min(tokens, limit)
            said = f"Score: {found.values[place]:.4f}" if found.values is not None else f"Answer: [{LETTERS[key]}]"
            answer = "" if tokens > limit else "I am not sure." if key < 0 and found.values is None else said
            message = {"role": "assistant", "content": f"(reasoning of {min(tokens, limit)} tokens)\n{answer}"}
            choices.append(
                {"index": index, "finish_reason": "length" if tokens > limit else "stop", "message": message}
            )
        self.requests += 1
        usage = {"prompt_tokens": found.prompt, "completion_tokens": spent, "total_tokens": found.prompt + spent}
        return {"object": "chat.completion", "model": body["model"], "choices": choices, "usage": usage}


@dataclass(frozen=True)
class Task:
    """What is tuned in a world, in USD per instance and in all."""

    world: Any
    """A ``World``, or a function from the arena's directory to one."""
    prices: dict[str, tuple[float, float]]
    """Model to USD per 1M tokens of input and output."""
    inference_budget: float
    optimization_budget: float
    styles: tuple[str, ...]
    ancestor: float | None = None
    """Median true success_vote of pyautogen 0.1.14."""
    metric: str = "success_vote"
    keys: dict[str, Any] = field(default_factory=dict)
    """Further keys of the suite."""
    tuned: int = TUNED
    """Rows to tune on; the referee has the others."""

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.prices)

    def order(self, world: World, seed: int) -> list[int]:
        """The world's rows in the seed's order: the first are tuned on."""
        import random

        ids = list(range(1, world.rows + 1))
        random.Random(seed).shuffle(ids)
        return [number - 1 for number in ids]

    def suite(self, problems: list[dict[str, Any]], seed: int, share: float = 1.0, **keys: Any) -> Suite:
        """As the arena's README says; ``share`` is the part of the optimization budget."""
        given = {
            "name": "arena",
            "dataset": problems,
            "prompt": [f"[style:{style}]\n{{question}}" for style in self.styles],
            "model": list(self.models),
            "max_tokens": lograndint(50, 1000),
            "n": randint(1, 11),
            "grader": {"regex": {"pattern": r"Answer: \[([A-H])\]"}} if self.metric == "success_vote" else closeness,
            "metric": self.metric,
            "shuffle": False,
            "tune_size": self.tuned,
            "duplicates": "allow",
            "seed": seed,
            "inference_budget": self.inference_budget,
            "optimization_budget": self.optimization_budget * share,
            "num_samples": -1,
            "prices": {model: {"input": usd[0], "output": usd[1]} for model, usd in self.prices.items()},
        }
        return Suite(**given | self.keys | keys)


def closeness(responses: list[str], **_: Any) -> dict[str, float]:
    """The mean of the scores that the answers state; an answer without one is worth 0."""
    found = [re.search(r"Score: ([\d.]+)", text) for text in responses]
    return {"closeness": sum(float(match[1]) if match else 0.0 for match in found) / len(found)}


class Referee:
    """What a configuration is truly worth on the rows that were not tuned on."""

    def __init__(self, task: Task, world: World, seed: int) -> None:
        self.task, self.world = task, world
        self.exam = task.order(world, seed)[task.tuned :]

    def curve(self, model: str, style: str, heat: float, limit: int = 10**9) -> tuple[NDArray[Any], NDArray[Any]]:
        """(10,) true scores and USD per instance for n = 1 to 10."""
        found = [_votes(self.world, model, style, row, heat, limit) for row in self.exam]
        asked, answered = self.task.prices[model]
        prompt = np.mean([prompt for _, _, prompt in found])
        length = np.mean([length for _, length, _ in found])
        usd = (prompt * asked + np.arange(1, 11) * length * answered) / 1e6
        return np.mean([score for score, _, _ in found], axis=0), usd

    def true(self, config: Config) -> tuple[float, float]:
        """True score and USD per instance."""
        if config.following is not None:
            return self._cascade(config)
        style = str(config.template.source).split("[style:")[1].split("]")[0]
        heat = config.params.get("temperature", config.params.get("top_p", 1.0))
        scores, usd = self.curve(config.model, style, heat, config.params.get("max_tokens", 10**9))
        return float(scores[config.n - 1]), float(usd[config.n - 1])

    def _cascade(self, config: Config) -> tuple[float, float]:
        """Of two steps: what the first accepts, and the second for the rest."""
        first, last = config.steps
        assert first.accept is not None
        place = [(str(step.template.source).split("[style:")[1].split("]")[0], step) for step in (first, last)]
        (style, _), (other, _) = place
        heats = [step.params.get("temperature", step.params.get("top_p", 1.0)) for step in (first, last)]
        score, usd = 0.0, 0.0
        for row in self.exam:
            cell = self.world.samples(first.model, style, row, heats[0])
            keys = np.where(cell.tokens <= first.params.get("max_tokens", 10**9), cell.keys, -1)
            drawn = keys[_orders(len(keys))[:, : first.n]]
            counts = np.sort((drawn[:, :, None] == np.arange(len(LETTERS))).sum(axis=1), axis=1)
            lead = counts[:, -1] - counts[:, -2]
            taken = (counts[:, -1] > 0) & (lead >= first.accept.margin * first.n - 1e-9)
            right = elected(drawn)[:, -1] == self.world.right[row]
            scores, length, prompt = _votes(self.world, last.model, other, row, heats[1], 10**9)
            score += float((taken & right).mean()) + float((~taken).mean()) * float(scores[last.n - 1])
            (asked, answered), (more, longer) = self.task.prices[first.model], self.task.prices[last.model]
            usd += (cell.prompt * asked + first.n * float(cell.tokens.mean()) * answered) / 1e6
            usd += float((~taken).mean()) * (prompt * more + last.n * length * longer) / 1e6
        return score / len(self.exam), usd / len(self.exam)

    def best(self, heats: tuple[float, ...] = tuple(tenth / 10 for tenth in range(11))) -> float:
        """The best true score within the inference budget over the grid: a little optimistic, for it is chosen on the exam."""
        found = 0.0
        for model, style, heat in product(self.task.models, self.task.styles, heats):
            scores, usd = self.curve(model, style, heat)
            found = max(found, float(np.max(scores, where=usd <= self.task.inference_budget, initial=0.0)))
        return found


_ORDERED: dict[int, NDArray[np.int64]] = {}


def _orders(size: int) -> NDArray[np.int64]:
    if size not in _ORDERED:
        _ORDERED[size] = np.random.default_rng(0).permuted(np.tile(np.arange(size), (_ORDERS, 1)), axis=1)
    return _ORDERED[size]


def elected(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """(orders, n): the elected letter after each answer; ties go to the first seen; -1: none."""
    seen = keys[:, :, None] == np.arange(len(LETTERS))
    counts = seen.cumsum(axis=1)
    first = np.where(seen.any(axis=1), seen.argmax(axis=1), keys.shape[1])
    rank = counts - first[:, None, :] / (keys.shape[1] + 1)
    return np.where(counts.max(axis=2) > 0, np.where(counts > 0, rank, -np.inf).argmax(axis=2), -1)


@cache
def _votes(world: World, model: str, style: str, row: int, heat: float, limit: int) -> tuple[Any, float, int]:  # noqa: PLR0917  # a cache keys by position
    """For n = 1 to 10 the score; mean length of an answer and the prompt's tokens."""
    cell = world.samples(model, style, row, heat)
    whole = cell.tokens <= limit
    length = float(np.minimum(cell.tokens, limit).mean())
    if cell.values is not None:
        return np.full(10, float(np.where(whole, cell.values, 0.0).mean())), length, cell.prompt
    keys = np.where(whole, cell.keys, -1)
    return (elected(keys[_orders(len(keys))[:, :10]]) == world.right[row]).mean(axis=0), length, cell.prompt


# -- made ones


@dataclass(eq=False)
class Made(World):
    """Answers from a model of answering: softmax over a right answer and three wrong ones, sharper at low temperatures."""

    strength: dict[tuple[str, str], float]
    """Model and style to logits of the right answer."""
    lengths: dict[str, float]
    """Model to mean tokens of an answer."""
    seed: int = 0
    rows: int = 160
    kept: int = 24
    """Answers of a cell."""
    graded: bool = False
    """Whether answers are worth scores from 0 to 1."""
    warmth: float = 0.0
    """Logits lost from temperature 0 to 1, beside the noise of sampling."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.right = rng.integers(0, 4, self.rows)
        self.hard = rng.normal(0, 1.6, self.rows)
        self.lures = rng.normal(0, 1.3, (self.rows, 4))

    @cache  # noqa: B019  # one world lives as long as the program
    def samples(self, model: str, style: str, row: int, heat: float) -> Samples:
        heat = min(round(heat * 4) / 4, 1.5)

        def luck(*what: object) -> np.random.Generator:
            return np.random.default_rng(
                int.from_bytes(hashlib.sha256(repr((self.seed, *what)).encode()).digest()[:8], "big")
            )

        own = luck(model, row).normal(0, 0.9) + luck(model, style, row).normal(0, 0.5)
        logit = self.strength[model, style] - self.hard[row] + own - self.warmth * heat
        rng = luck(model, style, row, heat)
        tokens = np.maximum(
            1, rng.lognormal(np.log(self.lengths[model]) + 0.15 * self.hard[row], 0.3, self.kept)
        ).astype(int)
        prompt = 30 + len(style) // 4 + row % 7
        if self.graded:
            middle = 1 / (1 + np.exp(-(logit + rng.normal(0, 0.3 + 0.4 * heat, self.kept)) / 2.5))
            return Samples(np.zeros(self.kept, dtype=int), tokens, prompt, np.clip(middle, 0, 1))
        logits = self.lures[row].copy()
        logits[self.right[row]] = logit
        chances = np.exp(logits / (0.25 + 0.75 * heat))
        return Samples(rng.choice(4, self.kept, p=chances / chances.sum()), tokens, prompt)


def _world(models: dict[str, tuple[float, float]], styles: dict[str, float], **fields: Any) -> Made:
    """Models with strength and length; styles with what they add."""
    rng = np.random.default_rng(fields.get("seed", 0) + 1)
    strength = {
        (m, s): power + more + rng.normal(0, 0.2)
        for (m, (power, _)), (s, more) in product(models.items(), styles.items())
    }
    return Made(strength, {model: length for model, (_, length) in models.items()}, **fields)


def made_tasks() -> dict[str, Task]:
    """Tasks of shapes that the arena does not have."""
    rng = np.random.default_rng(7)
    nine = {f"m{i}": (0.4 * i - 1.2, 180.0) for i in range(9)}
    turned = {f"m{i}": (0.5 * 2 ** (8 - i) / 4, 1.5 * 2 ** (8 - i) / 4) for i in range(9)}
    three = {"plain": 0.0, "steps": 0.5, "terse": -0.3}
    forty = {f"p{i:02}": float(rng.normal(-0.6, 0.3)) for i in range(39)} | {"p39": 1.6}
    many = {f"k{i:02}": (float(rng.normal(0.2, 0.8)), 60.0) for i in range(56)}
    levels = {model: float(2 ** rng.uniform(-4, 4)) for model in many}
    pair = {"small": (0.6, 150.0), "large": (3.0, 150.0)}
    return {
        # dearer is worse: what everybody knows is wrong here
        "inverted": Task(_world(nine, three, seed=1), turned, 0.02, 4.0, tuple(three)),
        # one prompt of forty is far better, and comes last
        "prompts": Task(
            _world({"a": (0.2, 60.0), "b": (0.5, 60.0)}, forty, seed=2),
            {"a": (0.5, 1.5), "b": (1, 3)},
            0.002,
            0.12,
            tuple(forty),
        ),
        # answers of ten tokens under a limit of a thousand
        "short": Task(
            _world({f"s{i}": (0.35 * i - 0.6, 10.0) for i in range(6)}, three, seed=3),
            {f"s{i}": (0.5 * 2**i, 1.5 * 2**i) for i in range(6)},
            0.0012,
            0.1,
            tuple(three),
        ),
        # scores instead of right and wrong, and as many models as nobody can look at closely; prices say nothing
        "graded": Task(
            _world(many, {"plain": 0.0}, seed=4, graded=True),
            {m: (usd, 3 * usd) for m, usd in levels.items()},
            0.002,
            0.12,
            ("plain",),
            metric="closeness",
        ),
        # the vote is worth a lot, and the budget pays for eight answers of the right model
        "votes": Task(
            _world({"v0": (0.3, 120.0), "v1": (0.5, 120.0), "v2": (0.9, 120.0)}, {"plain": 0.0, "steps": 0.3}, seed=5),
            {"v0": (0.1, 0.4), "v1": (0.2, 0.8), "v2": (0.4, 1.6)},
            0.0017,
            0.12,
            ("plain", "steps"),
        ),
        # a budget between two models: one answer of the large is too dear, ten of the small do not help
        "between": Task(
            _world(pair, three, seed=6), {"small": (0.5, 1.5), "large": (8, 24)}, 0.0025, 1.2, tuple(three)
        ),
    }


def growing_tasks() -> dict[str, Task]:
    """Searches of growing size: twice the rows for twice the dollars, then twice the prompts for the same rows and dollars."""

    def task(rows: int, prompts: int) -> Task:
        styles = {f"p{index:03}": 0.3 * (index % 5) for index in range(prompts)}
        world = _world({"small": (0.3, 60.0), "large": (0.9, 60.0)}, styles, seed=8, rows=rows + 40)
        prices = {"small": (0.5, 1.5), "large": (1.0, 3.0)}
        return Task(world, prices, 0.002, 0.003 * rows, tuple(styles), tuned=rows)

    sizes = [(80, 5), (160, 5), (320, 5), (640, 5), (80, 10), (80, 20), (80, 40)]
    return {f"{rows} rows, {prompts} prompts": task(rows, prompts) for rows, prompts in sizes}
