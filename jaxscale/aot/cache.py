"""Answers kept on disk, so that a question asked twice compiles once."""

import contextlib
import gzip
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxscale.errors import SpecError
from jaxscale.units import parse_quantity

DEFAULT_MAX_BYTES = 2.0 * 2**30
_SUFFIX = ".json.gz"


def default_cache_dir() -> Path:
    """$JAXSCALE_CACHE, else `jaxscale` in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache)."""
    if chosen := os.environ.get("JAXSCALE_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "jaxscale"


def default_max_bytes() -> float:
    """$JAXSCALE_CACHE_SIZE, such as "500 MiB", else 2 GiB."""
    chosen = os.environ.get("JAXSCALE_CACHE_SIZE")
    return parse_quantity(chosen, "bytes", field="JAXSCALE_CACHE_SIZE") if chosen else DEFAULT_MAX_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheInfo:
    """What a cache holds."""

    directory: Path
    num_entries: int
    num_bytes: int
    max_bytes: float


class Cache:
    """A folder of JSON answers by key. Writers may race: an entry appears whole or not at all.

    When the entries outgrow `max_bytes`, those read longest ago go first. A damaged entry counts as absent.
    """

    def __init__(self, directory: Path | None = None, *, max_bytes: float | None = None) -> None:
        self.directory = (directory or default_cache_dir()) / "compiled"
        self.max_bytes = default_max_bytes() if max_bytes is None else max_bytes

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer kept under a key, or None."""
        path = self._path(key)
        try:
            answer = json.loads(gzip.decompress(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError):  # cut short by a full disk, or not ours
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # its turn to go comes last
        return answer

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer."""
        if not self.max_bytes:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.directory, prefix=".", delete=False) as file:
                file.write(gzip.compress(json.dumps(answer).encode(), compresslevel=5))
            os.replace(file.name, self._path(key))
        except OSError as error:
            raise SpecError(f"cache {self.directory}: cannot be written: {error.strerror}") from error
        self._shrink()

    def info(self) -> CacheInfo:
        """Count what is kept."""
        sizes = [size for _, _, size in self._entries()]
        return CacheInfo(
            directory=self.directory, num_entries=len(sizes), num_bytes=sum(sizes), max_bytes=self.max_bytes
        )

    def clear(self) -> int:
        """Forget everything; returns how many answers that were."""
        entries = self._entries()
        for _, path, _ in entries:
            path.unlink(missing_ok=True)
        return len(entries)

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}{_SUFFIX}"

    def _entries(self) -> list[tuple[float, Path, int]]:
        """(last use, path, bytes) of every entry; one that another process removes meanwhile is left out."""
        found = []
        for path in self.directory.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime, path, status.st_size))
        return found

    def _shrink(self) -> None:
        entries = sorted(self._entries(), key=lambda entry: entry[0])
        excess = sum(size for _, _, size in entries) - self.max_bytes
        for _, path, size in entries:
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size
