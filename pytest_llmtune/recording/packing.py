"""Files compressed by zstd, which everything else reads as they were: Python's own from 3.14, else the extra `zstd`."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from typing import IO, TYPE_CHECKING, Any

from pytest_llmtune.errors import RecordingError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["pack", "unpacked"]


_LEVEL = 10


def pack(text: bytes) -> bytes:
    """The text compressed.

    Raises:
        RecordingError: no zstd is installed.
    """
    packed: bytes = _zstd().compress(text, _LEVEL)
    return packed


def unpacked(path: Path, most: int) -> IO[bytes]:
    """A temporary file with what a compressed one holds, at its start.

    Raises:
        RecordingError: no zstd is installed, it is damaged, or holds more than ``most`` bytes.
        OSError: it cannot be read.
    """
    zstd, file = _zstd(), tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with zstd.open(path, "rb") as source:
            shutil.copyfileobj(_Limited(source, path, most), file)
    except BaseException as error:
        file.close()
        if isinstance(error, (getattr(zstd, "ZstdError", EOFError), EOFError)):
            raise RecordingError(f"the recording {path} is damaged: {error}; restore it from git") from None
        raise
    file.seek(0)
    return file


class _Limited(io.RawIOBase):
    """A few bytes may hold terabytes: stops in time."""

    def __init__(self, source: Any, path: Path, most: int) -> None:
        self._source, self._path, self._most, self._left = source, path, most, most

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise RecordingError(f"the recording {self._path} unpacks to more than the limit of {self._most:,} bytes")
        return data


def _zstd() -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            import zstandard as zstd
    except ImportError:
        raise RecordingError(
            "a part of a recording is compressed by zstd, which is not installed: pip install 'pytest-llmtune[zstd]'"
        ) from None
    return zstd
