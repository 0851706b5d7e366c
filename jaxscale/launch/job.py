"""What is started: one jaxscale command on every host of a slice, with the files that it reads."""

import base64
import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxscale.catalog.strict import read_text
from jaxscale.errors import SpecError, nearest
from jaxscale.launch.slice import Slice

VERBS = ("measure", "sweep", "tune", "probe")
ON_SEVERAL_HOSTS = ("measure", "sweep")
MAX_FILES_BYTES = 512 * 2**10  # all of them together travel inside one file; a ConfigMap and a command line are limited
COORDINATOR_PORT = 8482  # as jax.distributed uses on Cloud TPU; the next one is that of a sweep's leader
POSTGRES_DRIVER = "psycopg[binary]"

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")  # of a cloud's resource, and of a DNS label with room for more
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile(r"[ -~]*")  # printable ASCII, one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A file that travels with the job, as shell text that writes it."""

    name: str
    text: str

    @property
    def here_document(self) -> str:
        """The shell lines that write it; as base64 where it is more than plain text, or might end a document."""
        lines = self.text.split("\n")
        is_plain = self.text.endswith("\n") and not any(
            line.startswith("END_") or not _PLAIN.fullmatch(line) for line in lines
        )
        body = self.text if is_plain else base64.encodebytes(self.text.encode()).decode()
        end = f"END_{hashlib.sha256(body.encode()).hexdigest()[:16]}"
        write = f"cat > {shlex.quote(self.name)}" if is_plain else f"base64 --decode > {shlex.quote(self.name)}"
        return f"{write} <<'{end}'\n{body}{end}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One launch. All text in it is printable, and `name` a DNS label."""

    name: str
    slice: Slice
    command: tuple[str, ...]  # after `jaxscale`; files by their names
    files: tuple[Carried, ...]
    package: str  # for pip
    image: str
    queue: str
    partition: str
    hours: float
    store: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SpecError(f"name={self.name!r} must be up to 40 lower-case letters, digits and -, such as sweep-1")
        for field in ("package", "image", "store"):
            require_plain(getattr(self, field), field)
        for field in ("queue", "partition"):
            if not re.fullmatch(r"[A-Za-z0-9_.-]*", getattr(self, field)):
                raise SpecError(f"{field}={getattr(self, field)!r} must be letters, digits, _, . and -")
        require_plain(self.slice.cluster.name, "name of the slice")
        for word in self.command:
            require_plain(word, "command")
        for variable, value in self.slice.environment.items():
            if not _VARIABLE.fullmatch(variable):
                raise SpecError(f"launch: environment: {variable!r} is not a name of a variable")
            require_plain(value, f"launch: environment: {variable}")

    @property
    def packages(self) -> tuple[str, ...]:
        """What pip installs."""
        return (self.package, POSTGRES_DRIVER) if self.store.startswith("postgresql") else (self.package,)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every host beside those that say which host it is."""
        return self.slice.environment | {"JAXSCALE_STORE": self.store}


def require_plain(text: str, field: str) -> str:
    """Return text that is printable ASCII on one line; anything else has no place in a launch file."""
    if not _PLAIN.fullmatch(text):
        raise SpecError(f"{field}={text!r} must be printable ASCII on one line")
    return text


def make_job(
    where: Slice,
    command: Sequence[str],
    *,
    name: str = "",
    extra_files: Sequence[Path] = (),
    package: str = "",
    image: str = "python:3.12-slim",
    queue: str = "",
    partition: str = "",
    hours: float = 4.0,
    store: str = "runs.db",
) -> Job:
    """A job that runs `jaxscale COMMAND` on every host; files that the command names travel with it."""
    if not command or command[0] not in VERBS:
        said = command[0] if command else ""
        raise SpecError(
            f"command={said!r} is not one of {', '.join(VERBS)}, which run on devices.{nearest(said, VERBS)}"
        )
    if where.hosts > 1 and command[0] not in ON_SEVERAL_HOSTS:
        raise SpecError(
            f"command={command[0]!r} runs on one host and {where.cluster.name} has {where.hosts}; "
            f"{' and '.join(ON_SEVERAL_HOSTS)} run on several"
        )
    if not 0 < hours <= 24 * 14:
        raise SpecError(f"hours={hours} must be above 0 and at most {24 * 14}")
    paths = {word: Path(word) for word in command[1:] if _is_file(word)}
    files = [_carried(path) for path in (*paths.values(), *extra_files)]
    _check_together(files)
    return Job(
        name=name or _name(command[0], where),
        slice=where,
        command=tuple(paths[word].name if word in paths else word for word in command),
        files=tuple(files),
        package=package or f"jaxscale[{'tpu' if where.settings else 'cuda'}]",
        image=image, queue=queue, partition=partition, hours=hours, store=store,
    )  # fmt: skip


def _is_file(word: str) -> bool:
    return "\0" not in word and len(word) < 4096 and os.path.isfile(word)


def _carried(path: Path) -> Carried:
    if not _FILE.fullmatch(path.name):
        raise SpecError(f"{path}: a file that travels must be named with letters, digits, ., _ and -")
    return Carried(name=path.name, text=read_text(path))


def _check_together(files: Sequence[Carried]) -> None:
    names = [file.name for file in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise SpecError(f"{twice}: two files of that name would travel into one folder")
    size = sum(len(file.text.encode()) for file in files)
    if size > MAX_FILES_BYTES:
        raise SpecError(f"{', '.join(names)}: {size} bytes are too much to travel in a launch file ({MAX_FILES_BYTES})")


def _name(verb: str, where: Slice) -> str:
    place = re.sub(r"[^a-z0-9]+", "-", where.cluster.name.lower()).strip("-")
    return f"jaxscale-{verb}-{place}"[:40].rstrip("-")
