"""Drawings of the concept pages, computed by the code that they explain; SVG that needs nothing from the network."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise

from jaxscale.calibrate import own_stack
from jaxscale.catalog import load_cluster, load_model
from jaxscale.cost import estimate
from jaxscale.cost.parallel import network
from jaxscale.cost.parts import price_parts
from jaxscale.cost.problem import problem
from jaxscale.report.explain import time_groups
from jaxscale.report.ops import device_roof, predicted_ops
from jaxscale.report.step_trace import memory_counters, step_timeline
from jaxscale.types import AXES, LayoutBatch, Workload, parse_layout
from jaxscale.units import format_bytes, format_seconds, format_si

Points = Sequence[tuple[float, float]]
Form = Callable[[float], str]

_LEFT, _RIGHT, _TOP, _WIDTH, _HEIGHT, _BELOW = 86, 176, 30, 760, 300, 44  # px
_COLOURS = ("#2a78c8", "#d9822b", "#3a9d5d", "#b0508f", "#7a6fd0", "#8a8f98")  # told apart on light and dark pages
_MODEL = "llama3-8b"


def chart(
    title: str,
    curves: Mapping[str, Points],
    x: tuple[str, Form],
    y: Form,
    *,
    log: bool = False,
    dots: Mapping[str, Points] | None = None,
    steps: bool = False,
) -> str:
    """Curves, and dots, over two axes; `log` for both, `steps` where a value holds until the next."""
    dots = dots or {}
    every = [point for points in (*curves.values(), *dots.values()) for point in points]
    place = _Scale(every, log=log)
    parts = [*_frame(title, x, y, place)]
    for index, (name, points) in enumerate((curves | dots).items()):
        colour = _COLOURS[index % len(_COLOURS)]
        if name in curves:
            held = [p for a, b in pairwise(points) for p in (a, (b[0], a[1]))] + [points[-1]]
            path = " ".join(f"{place.x(a):.1f},{place.y(b):.1f}" for a, b in (held if steps else points))
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        else:
            parts += [f'<circle cx="{place.x(a):.1f}" cy="{place.y(b):.1f}" r="5" fill="{colour}"/>' for a, b in points]
        at = _TOP + 16 * index
        parts.append(f'<rect x="{_WIDTH - _RIGHT + 14}" y="{at}" width="11" height="11" fill="{colour}"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 30}" y="{at + 10}">{escape(name)}</text>')
    return _figure(title, _HEIGHT + _BELOW, parts)


class _Scale:
    """From values to pixels."""

    def __init__(self, points: Points, *, log: bool) -> None:
        self._map = math.log10 if log else float
        xs, ys = ([self._map(point[i]) for point in points] for i in (0, 1))
        self.low, self.high = (min(xs), min(ys) if log else 0.0), (max(xs), max(ys) + 0.05 * (max(ys) - min(ys)))

    def x(self, value: float) -> float:
        """Pixels from the left."""
        share = (self._map(value) - self.low[0]) / (self.high[0] - self.low[0])
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        share = (self._map(value) - self.low[1]) / (self.high[1] - self.low[1])
        return _HEIGHT - share * (_HEIGHT - _TOP)

    def ticks(self, axis: int, count: int = 5) -> list[float]:
        """Evenly spaced values."""
        at = [self.low[axis] + (self.high[axis] - self.low[axis]) * k / count for k in range(count + 1)]
        return [10**value for value in at] if self._map is math.log10 else at


def _frame(title: str, x: tuple[str, Form], y: Form, place: _Scale) -> list[str]:
    parts = [f'<text x="{_LEFT}" y="16" font-weight="600">{escape(title)}</text>']
    for value in place.ticks(0):
        parts.append(f'<text x="{place.x(value):.0f}" y="{_HEIGHT + 17}" text-anchor="middle">{x[1](value)}</text>')
    for value in place.ticks(1):
        at = place.y(value)
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}" stroke="currentColor" opacity="0.15"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{y(value)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT + 36}" text-anchor="middle">{escape(x[0])}</text>')
    return parts


def _figure(title: str, height: int, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"'
    style = 'style="font:12px system-ui,sans-serif" fill="currentColor"'
    body = "".join(parts)
    return f'<figure class="drawing">{head} {style} aria-label="{escape(title)}">{body}</svg></figure>'


def roofline() -> str:
    """The ops of a forward pass under the roof of a chip."""
    cluster, workload = load_cluster("v5p-64"), Workload(seq_len=8192, global_batch_size=128)
    given = (load_model(_MODEL), workload, cluster)
    stack = own_stack(cluster, workload)
    e = estimate(*given, parse_layout("fsdp=8,tensor=4,sp=true"), stack)
    ops = [op for op in predicted_ops(*given, e, stack) if "backward" not in op.name and op.kind != "optimizer"]
    roof = device_roof(cluster, workload)
    ends = min(op.intensity for op in ops), max(op.intensity for op in ops)
    ridge = roof.flops_per_s / roof.bytes_per_s
    dots: dict[str, list[tuple[float, float]]] = {}
    for op in ops:
        dots.setdefault(op.kind, []).append((op.intensity, op.flops_per_s))
    curve = [(at, roof.at(at)) for at in (ends[0], ridge, ends[1])]
    title = f"Ops of {_MODEL} under the roof of a TPU v5p, fsdp=8, tensor=4"
    return chart(
        title,
        {"data sheet": curve},
        ("FLOPs for each byte", lambda v: f"{v:,.0f}" if v > 10 else f"{v:.2g}"),
        lambda v: format_si(v, "FLOP/s"),
        log=True,
        dots=dots,
    )


def memory_over_time() -> str:
    """Bytes of the first and the last stage of a pipeline during a step."""
    cluster, workload = load_cluster("h100-sxm:32"), Workload(seq_len=4096, global_batch_size=64)
    layout = parse_layout("fsdp=4,tensor=2,pipeline=4,schedule=gpipe,remat=full")
    given = (load_model(_MODEL), workload, cluster)
    p = problem(*given)
    timeline, _ = step_timeline(
        e := estimate(*given, layout), workload, p, price_parts(p, LayoutBatch.from_layouts([layout]))
    )
    curves: dict[str, list[tuple[float, float]]] = {}
    for sample in memory_counters(timeline, e.memory_parts_bytes):
        curves.setdefault(sample.counter.removeprefix("memory of ").removesuffix(" (bytes)"), []).append(
            (sample.time_s, sample.value)
        )
    shown = {name: points for name, points in curves.items() if name in ("stage 0", "stage 3")}
    title = f"Memory of two stages of {_MODEL} in one step: four stages, 16 microbatches, gpipe"
    return chart(title, shown, ("seconds", lambda v: format_seconds(v) if v else "0"), format_bytes, steps=True)


def time_by_layout(*layouts: str) -> str:
    """A step's time in groups, one bar a layout."""
    cluster, workload = load_cluster("h100-sxm:64"), Workload(seq_len=8192, global_batch_size=256)
    stack = own_stack(cluster, workload)
    groups = {
        text: time_groups(estimate(load_model(_MODEL), workload, cluster, parse_layout(text), stack).time_parts_s)
        for text in layouts
    }
    longest = max(sum(parts.values()) for parts in groups.values())
    title = f"Seconds of a step of {_MODEL} on 64 H100, by layout"
    parts = [f'<text x="4" y="16" font-weight="600">{escape(title)}</text>']
    for row, (text, seconds) in enumerate(groups.items()):
        top, at = 34 + 44 * row, 4.0
        parts.append(f'<text x="4" y="{top + 8}">{escape(text)}: {format_seconds(sum(seconds.values()))}</text>')
        for index, value in enumerate(seconds.values()):
            width = value / longest * (_WIDTH - 8)
            parts.append(
                f'<rect x="{at:.1f}" y="{top + 13}" width="{width:.1f}" height="16" fill="{_COLOURS[index]}"/>'
            )
            at += width
    return _figure(
        title, 34 + 44 * len(groups) + 40, [*parts, *_legend(list(groups[layouts[0]]), 34 + 44 * len(groups))]
    )


def _legend(names: Sequence[str], top: int) -> list[str]:
    parts, at, line = [], 4, 0
    for index, name in enumerate(names):
        short = name.split(" (")[0]
        width = 30 + 7 * len(short)
        if at + width > _WIDTH:
            at, line = 4, line + 18
        parts.append(f'<rect x="{at}" y="{top + line}" width="11" height="11" fill="{_COLOURS[index]}"/>')
        parts.append(f'<text x="{at + 16}" y="{top + line + 10}">{escape(short)}</text>')
        at += width
    return parts


def collective_time() -> str:
    """An all-gather by the size of the gathered array, inside a node and across nodes."""
    cluster, workload = load_cluster("h100-sxm:64"), Workload(seq_len=4096, global_batch_size=64)
    p = problem(load_model(_MODEL), workload, cluster, own_stack(cluster, workload))
    sizes = [2.0**k for k in range(14, 33)]
    curves = {}
    for members, text in ((8, "tensor=8,fsdp=8"), (64, "fsdp=64")):
        net = network(p, LayoutBatch.from_layouts([parse_layout(text)]))
        axis = "tensor" if members == 8 else "fsdp"
        kind = "all-gather"
        seconds = [float(net.exchange(kind, kind, "fsdp", (axis,), "step", size, 1.0).seconds[0]) for size in sizes]
        where = "in one node" if members == 8 else "over 8 nodes"
        curves[f"{members} H100 {where}"] = list(zip(sizes, seconds, strict=True))
    return chart("An all-gather by the size of the whole array", curves, ("", format_bytes), format_seconds, log=True)


def mesh(text: str) -> str:
    """The devices of a layout as a grid; neighbours in a row are innermost, one colour is one ZeRO group's replica."""
    layout = parse_layout(text)
    inner = [axis for axis in layout.axis_order if getattr(layout, axis) > 1]
    degrees = [getattr(layout, axis) for axis in inner]
    columns = degrees[0]
    title = f"{layout.num_devices} devices of {text}: numbers are the place on {', '.join(reversed(inner))}"
    parts = [f'<text x="4" y="16" font-weight="600">{escape(title)}</text>']
    cell, last = 84, AXES.index("data")
    for device in range(layout.num_devices):
        places, left = [], device
        for degree in degrees:
            places.append(left % degree)
            left //= degree
        replica = dict(zip(inner, places, strict=True)).get(AXES[last], 0)
        row, column = divmod(device, columns)
        x, y = 4 + column * cell, 28 + row * 30
        colour = _COLOURS[replica % len(_COLOURS)]
        parts.append(f'<rect x="{x}" y="{y}" width="{cell - 6}" height="24" rx="3" fill="{colour}" opacity="0.35"/>')
        said = ", ".join(str(place) for place in reversed(places))
        parts.append(f'<text x="{x + (cell - 6) / 2}" y="{y + 16}" text-anchor="middle">{said}</text>')
    return _figure(title, 36 + 30 * math.ceil(layout.num_devices / columns), parts)
