"""Where a measurement runs: host, load, versions, flags and revision, so that it can be repeated and judged."""

import dataclasses
import os
import platform
import socket
import subprocess
from pathlib import Path

from jaxscale.aot.machine import available_memory_bytes, usable_cores
from jaxscale.aot.request import source_digest, versions
from jaxscale.types.measurement import Surroundings

_FLAG_NAMES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_FLAG_PREFIXES = ("JAX_", "NCCL_", "XLA_PYTHON_CLIENT_")
_GIT_TIMEOUT_S = 10.0


def look_around(environment: dict[str, str]) -> Surroundings:
    """Describe this machine now; `environment` is what the measuring process adds to this one's."""
    seen = os.environ | environment
    load = os.getloadavg()[0]
    return Surroundings(
        host=socket.gethostname(),
        num_cores=usable_cores(),
        load_before=load,
        load_after=load,
        free_memory_bytes=available_memory_bytes(),
        versions={"python": platform.python_version(), **versions()},
        flags={k: v for k, v in sorted(seen.items()) if k in _FLAG_NAMES or k.startswith(_FLAG_PREFIXES)},
        git_revision=git_revision(Path(__file__).parent),
        source_digest=source_digest(),
    )


def load_afterwards(before: Surroundings) -> Surroundings:
    """The same surroundings, with the load after the measurement."""
    return dataclasses.replace(before, load_after=os.getloadavg()[0])


def git_revision(folder: Path) -> str:
    """The commit that is checked out at `folder`, "+changes" where files differ from it; empty outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return ""
    return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
