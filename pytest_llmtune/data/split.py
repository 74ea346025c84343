"""Split rows into tuning and test rows."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.jsonhash import digest
from pytest_llmtune._util.text import did_you_mean, listed, shown
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from pytest_llmtune.data.dataset import Dataset
    from pytest_llmtune.types import Example


@dataclass(frozen=True, slots=True)
class Split:
    """The rows of a suite, in the order of use."""

    tune: tuple[Example, ...]
    test: tuple[Example, ...]
    reused: bool = False
    """Whether ``test`` has the tuning rows, because no row was left for it."""
    dataset: Dataset | None = None
    """The source of the rows, with counts of those left out."""
    doubled: int = 0
    """Rows left out as duplicates."""


Identity = Mapping[str, str]
"""Example ID to the hash of its prompt columns: rows that differ only in other columns are duplicates."""


def split(
    dataset: Dataset,
    tune_size: int | float = 20,
    test_size: int | None = None,
    *,
    method: Literal["random", "hash"] = "random",
    shuffle: bool = True,
    seed: int = 0,
    stratify: str | None = None,
    prompt_columns: Iterable[str] = (),
    duplicates: Literal["refuse", "drop", "allow"] = "refuse",
) -> Split:
    """Split a dataset into tuning and test rows.

    Args:
        tune_size: rows to tune on; below 1, a fraction of all rows.
        test_size: maximum number of test rows; None: all the rest.
        method: ``random``: the first ``tune_size`` rows tune. ``hash``: a row's content decides its side, so that no row
            changes sides when others are appended (or, if ``tune_size`` is a fraction, moved or removed).
        shuffle: order the rows by content and seed, independent of their order in the file.
        stratify: a column whose values should be as frequent in both parts as in the whole.
        prompt_columns: the columns that make up the prompt; rows that agree in them are duplicates. Default: all.
        duplicates: what to do with a row on both sides: ``refuse``, ``drop`` all but the first, ``allow``.

    Raises:
        SuiteError: duplicates on both sides, an unknown stratum column, an unsupported combination.
    """
    names = tuple(prompt_columns)
    identity = {
        e.id: digest({name: e.row.get(name) for name in names} if names else e.row, default=str)
        for e in dataset.examples
    }
    examples = dataset.examples
    if duplicates == "drop":
        first: dict[str, Example] = {}
        for example in examples:
            first.setdefault(identity[example.id], example)
        examples = tuple(first.values())
    ordered = sorted(examples, key=lambda e: (_hash(seed, identity[e.id]), e.id)) if shuffle else list(examples)
    if stratify is not None and stratify not in dataset.columns:
        raise SuiteError(
            f"stratify={stratify!r}{did_you_mean(stratify, dataset.columns)}: the columns are {listed(dataset.columns)}"
        )
    if method == "hash":
        tune, rest = _by_hash(examples, tune_size, seed, stratify, identity)
    else:
        count = max(1, round(tune_size * len(ordered))) if isinstance(tune_size, float) else tune_size
        tune, rest = _first(ordered, count, stratify)
    test = rest if test_size is None else _first(rest, test_size, stratify)[0]
    if duplicates == "refuse":
        _refuse_leaks(tune, test, identity)
    rank = {example.id: position for position, example in enumerate(ordered)}
    tuned, tested = (tuple(sorted(part, key=lambda e: rank[e.id])) for part in (tune, test))
    doubled = len(dataset.examples) - len(examples)
    return Split(tuned, tested or tuned, not tested, replace(dataset, examples=tuple(examples)), doubled)


def _hash(seed: int, *parts: object) -> float:
    """A number in [0, 1) determined by seed and parts."""
    text = "\0".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / (1 << 56)


def _first(ordered: Sequence[Example], count: int, stratify: str | None) -> tuple[list[Example], list[Example]]:
    """The first ``count`` rows and the rest; strata in proportion, largest remainders rounded up."""
    if stratify is None or count >= len(ordered):
        return list(ordered[:count]), list(ordered[count:])
    strata = _strata(ordered, stratify)
    exact = {name: count * len(members) / len(ordered) for name, members in strata.items()}
    quota = {name: math.floor(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (quota[name] - exact[name], name))
    for name in by_remainder[: count - sum(quota.values())]:
        quota[name] += 1
    chosen = {example.id for name, members in strata.items() for example in members[: quota[name]]}
    return [e for e in ordered if e.id in chosen], [e for e in ordered if e.id not in chosen]


def _strata(examples: Iterable[Example], column: str) -> Mapping[str, list[Example]]:
    """The rows by their value in a column."""
    strata: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        strata[str(example.row.get(column))].append(example)
    return strata


def _by_hash(
    examples: Sequence[Example], tune_size: int | float, seed: int, stratify: str | None, identity: Identity
) -> tuple[list[Example], list[Example]]:
    """Assign sides independently of the number of rows.

    A fraction: each row by its own hash. A count: the first rows, in file order, of those whose hash is below 1/2, so that
    appended rows move no other.
    """
    fraction = tune_size if isinstance(tune_size, float) else 0.5
    if stratify is None:
        side = {e.id for e in examples if _hash(seed, "side", identity[e.id]) < fraction}
    elif isinstance(tune_size, float):
        side = _stratified_side(examples, fraction, seed, stratify)
    else:
        raise SuiteError(
            "split='hash' with stratify= takes tune_size as a fraction, as in tune_size=0.2: a count cannot stay fair"
        )
    if not isinstance(tune_size, float):
        side = set([e.id for e in examples if e.id in side][:tune_size])
    return [e for e in examples if e.id in side], [e for e in examples if e.id not in side]


def _stratified_side(examples: Iterable[Example], fraction: float, seed: int, stratify: str) -> set[str]:
    """In each stratum, in file order, the same share of every few rows; the seed decides which of them."""
    size = max(1, round(1 / fraction))
    side = set()
    for name, members in _strata(examples, stratify).items():
        start = _hash(seed, "start", name)
        for block in range(math.ceil(len(members) / size)):
            share = math.floor((block + 1) * size * fraction + start) - math.floor(block * size * fraction + start)
            indices = sorted(range(size), key=lambda index: _hash(seed, "place", name, block, index))[:share]
            side |= {members[block * size + index].id for index in indices if block * size + index < len(members)}
    return side


def _refuse_leaks(tune: Iterable[Example], test: Iterable[Example], identity: Identity) -> None:
    tuning = {identity[example.id]: example for example in tune}
    leaks = [(tuning[identity[example.id]], example) for example in test if identity[example.id] in tuning]
    if leaks:
        pairs = ", ".join(f"{one.index + 1} = {other.index + 1}" for one, other in leaks[:5])
        more = f" and {len(leaks) - 5} more" if len(leaks) > 5 else ""
        raise SuiteError(
            f"{len(leaks)} of the test rows are tuning rows too (rows {pairs}{more}; "
            f"the first: {shown(dict(leaks[0][0].row))}); "
            "remove them, or set duplicates='drop' (keep the first of each) or duplicates='allow'"
        )
