"""Many compiles at once, as many as the machine's memory and cores allow, in the order in which they were asked."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from jaxscale.aot.cache import Cache
from jaxscale.aot.compile import DEFAULT_TIMEOUT_S, Canceller, try_compile
from jaxscale.aot.machine import available_memory_bytes, usable_cores
from jaxscale.aot.request import CompileRequest
from jaxscale.aot.result import CompiledStep

BYTES_PER_WORKER = 3.0 * 2**30  # resident memory of one compile: 2 GB at most in our runs, and some room


def num_workers(*, available_bytes: float | None = None, cores: int | None = None) -> int:
    """Compiles to run at once: one a core, as long as each has its share of the memory now free."""
    free = available_memory_bytes() if available_bytes is None else available_bytes
    return max(1, min(cores or usable_cores(), int(free // BYTES_PER_WORKER)))


def compile_layouts(
    requests: Sequence[CompileRequest],
    *,
    workers: int | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    cache: Cache | None = None,
) -> Iterator[tuple[int, CompiledStep]]:
    """Compile requests, best first, and yield (index, result) as each is done.

    A compile that fails, hangs or dies is a result with `status="failed"`. Leaving the loop early, or an interrupt,
    kills what still runs and starts nothing more.
    """
    canceller = Canceller()
    executor = ThreadPoolExecutor(max_workers=workers or num_workers(), thread_name_prefix="compile")
    try:
        running: dict[Future[CompiledStep], int] = {
            executor.submit(try_compile, request, timeout_s=timeout_s, cache=cache, canceller=canceller): index
            for index, request in enumerate(requests)
        }
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=running.__getitem__):
                yield running.pop(future), future.result()
    finally:
        canceller.cancel()
        executor.shutdown(wait=True, cancel_futures=True)
