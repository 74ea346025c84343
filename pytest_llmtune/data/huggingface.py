"""Read datasets from the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pytest_llmtune._util.text import did_you_mean, listed, shown
from pytest_llmtune.data.readers import keep_inside, too_large
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from pathlib import Path


_OPTIONS = ("name", "split", "revision")


def parse_name(source: str) -> dict[str, str]:
    """Parse ``hf:PATH?name=CONFIG&split=SPLIT&revision=REVISION``; PATH is a Hub name or a local directory."""
    path, _, query = source.removeprefix("hf:").partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in _OPTIONS:
            raise SuiteError(
                f"{shown(source)}: no option {option!r}{did_you_mean(option, _OPTIONS)}; valid: {', '.join(_OPTIONS)}"
            )
    if not path.strip("/"):
        raise SuiteError(
            f"{shown(source)} names no dataset; valid: hf:openai/gsm8k?name=main&split=test, hf:./saved_copy"
        )
    return {"path": path, **options}


def open_rows(
    source: str, base_dir: Path, root: Path | None = None, *, offline: bool = False, max_bytes: int | None = None
) -> Iterable[Any]:
    """The rows of ``hf:NAME``, in order; iterating may raise the library's own errors.

    Args:
        offline: use local copies only: a directory (``save_to_disk``, or files), or the library's cache.
        max_bytes: of all files of a directory together; None: any number.

    Raises:
        SuiteError: the extra is not installed, no such dataset or split, too large a directory, or (offline) no local copy.
    """
    try:
        import datasets
    except ImportError:
        raise SuiteError(f"{source} needs the library datasets: pip install 'pytest-llmtune[hf]'") from None
    name = parse_name(source)
    directory = base_dir / name["path"]
    keep_inside([directory] if directory.exists() else [], root, source)
    files = (file for file in directory.rglob("*") if file.is_file())
    if max_bytes is not None and sum(file.stat().st_size for file in files) > max_bytes:
        raise too_large(shown(source), max_bytes)
    try:
        with _quiet(datasets, offline=offline or directory.is_dir()):
            if (directory / "state.json").is_file() or (directory / "dataset_dict.json").is_file():
                data = datasets.load_from_disk(str(directory))
            else:
                path = str(directory) if directory.is_dir() else name["path"]
                options = {option: name.get(option) for option in _OPTIONS}
                data = datasets.load_dataset(path, **options)
    except SuiteError:
        raise
    except Exception as error:
        blocked = offline and not directory.is_dir()
        hint = "; the network is blocked here: load it once with --llm-tune or --llm-record=missing" if blocked else ""
        raise SuiteError(
            f"{source} cannot be loaded: {type(error).__name__}: {shown(str(error), 300)}{hint}"
        ) from error
    if not isinstance(data, Mapping):
        return data  # type: ignore[no-any-return]
    splits = sorted(data)
    split = name.get("split") or (splits[0] if len(splits) == 1 else "")
    if split not in data:
        what = f"no split {split!r}{did_you_mean(split, splits)}" if split else "name a split, as in ?split=test"
        raise SuiteError(f"{shown(source)}: {what}; there are {listed(splits)}")
    return data[split]  # type: ignore[no-any-return]


@contextmanager
def _quiet(datasets: Any, *, offline: bool) -> Iterator[None]:
    """Disable progress bars; if offline, restrict the library to its cache."""
    from huggingface_hub import constants

    bars = datasets.are_progress_bars_disabled()
    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.disable_progress_bars()
    if offline:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
        if not bars:
            datasets.enable_progress_bars()
