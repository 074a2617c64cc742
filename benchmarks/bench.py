"""How close flowsr is to what it is made of: ``python -m benchmarks.bench [ROW ...]``, or ``make bench``.

Each row is a piece of work over the bare minimum of it: its convolutions alone for the passes of a model, its batched
gradients alone for chains. A row with a bar says so where it is beyond it.

Conventions: one thread; random weights but for the chains, as speed does not depend on them; both parts in turns, so
that both see the same machine. Time is that of the process, in which others have no part, though their use of memory
has; on a GPU it is the time until the device is done, and bars, which are for a CPU, do not count. Figures are medians
of the turns; the spread is their middle half. Freed memory is kept, as the command ``flowsr`` keeps it;
``--give-memory-back`` leaves that to the C library, as a Python program does by default.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import flowsr
from benchmarks.convolutions import bare, convolutions_of
from benchmarks.graphs import captured, compiled
from flowsr._support.free_memory import keep_freed_memory
from flowsr._support.json import write_json
from flowsr.models.conditional import ConditionalModel, require_conditional
from flowsr.models.registry import from_preset
from flowsr.plots import PALETTE, new_figure, plain_axes, save_figure
from flowsr.posterior import GaussianNoise, InverseProblem, Mask
from flowsr.posterior.kernels import HMC
from flowsr.posterior.samplers import sample_chains
from flowsr.training.objectives import likelihood_loss

Work = Callable[[], Any]


@dataclass(frozen=True)
class Measured:
    """A row of the table.

    Attributes:
        row: its name.
        work: what was timed.
        seconds: of the work.
        alone: seconds of its bare minimum.
        ratio: of the two, turn by turn.
        spread: the middle half of the ratios.
        bar: what the ratio should not exceed; None for a row that is a time, not a promise.
        repeats: how many turns.
    """

    row: str
    work: str
    seconds: float
    alone: float
    ratio: float
    spread: tuple[float, float]
    bar: float | None
    repeats: int

    @property
    def verdict(self) -> str:
        """Whether the ratio is at its bar, in words."""
        if self.bar is None:
            return "no bar"
        return f"bar {self.bar:.2f}" if self.ratio <= self.bar else f"BEYOND its bar of {self.bar:.2f}"

    def __str__(self) -> str:
        low, high = self.spread
        times = f"{self.seconds:9.4f} s {self.alone:9.4f} s"
        return f"{self.row:20}{self.work:52}{times} {self.ratio:6.2f} ({low:.2f} to {high:.2f})  {self.verdict}"


@dataclass(frozen=True)
class Row:
    """One comparison, made ready when it is asked for.

    Attributes:
        work: what it is, in words.
        prepare: for a device, the work and the bare minimum of it.
        bar: what their ratio should not exceed.
        repeats: turns by default.
        gpu: whether it is measured by default on a GPU only.
    """

    work: str
    prepare: Callable[[str], tuple[Work, Work]]
    bar: float | None
    repeats: int = 9
    gpu: bool = False


def rows_for(device: str) -> list[str]:
    """The rows that are measured on a device where none is named."""
    return [name for name, row in ROWS.items() if device != "cpu" or not row.gpu]


def measure(name: str, *, device: str = "cpu", repeats: int | None = None) -> Measured:
    """Measure a row of :data:`ROWS`.

    Cost: both of its parts, ``repeats + 1`` times.

    Args:
        name: of the row.
        device: "cpu" or "cuda".
        repeats: turns, after one to warm up; by default as many as the row says.

    Raises:
        ValueError: for fewer than one repeat.
    """
    row = ROWS[name]
    repeats = row.repeats if repeats is None else repeats
    if repeats < 1:
        raise ValueError(f"expected repeats >= 1; got {repeats}")
    torch.manual_seed(0)
    pair = row.prepare(device)
    turns = [[_seconds(part, device) for part in pair] for _ in range(repeats + 1)][1:]
    ratios = [work / max(alone, 1e-9) for work, alone in turns]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if repeats > 1 else ratios * 3
    work, alone = (statistics.median(times) for times in zip(*turns, strict=True))
    bar = row.bar if device == "cpu" else None
    return Measured(name, row.work, work, alone, statistics.median(ratios), (low, high), bar, repeats)


def _seconds(work: Work, device: str) -> float:
    if device == "cpu":
        begin = time.process_time()
        work()
        return time.process_time() - begin
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def _model(name: str, device: str) -> ConditionalModel:
    return require_conditional(from_preset(name).to(device), what="timing it")


def _precision(bf16: bool, device: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()


def _over_convolutions(work: Work, device: str, *, backward: bool = False) -> tuple[Work, Work]:
    return work, bare(convolutions_of(work), device=device, backward=backward)


def _decode(name: str, batch: int, size: int, device: str, *, bf16: bool = False) -> tuple[Work, Work]:
    flow = _model(name, device)
    lr = torch.rand(batch, flow.config.image_channels, size, size, device=device)
    z = flow.draw_latents(lr, temperature=0.8)

    @torch.no_grad()
    def work() -> None:
        with _precision(bf16, device):
            flow.decode(lr, z)

    return _over_convolutions(work, device)


def _repeated(name: str, batch: int, size: int, device: str, *, made: Callable[[Work], Work]) -> tuple[Work, Work]:
    """Decoding again and again from latents in one place, made faster, over the same as it is."""
    flow = _model(name, device).eval().requires_grad_(False)
    lr = torch.rand(batch, flow.config.image_channels, size, size, device=device)
    z = flow.draw_latents(lr, temperature=0.8)

    def work() -> torch.Tensor:
        return flow.decode_unchecked(lr, z)

    with torch.no_grad():
        faster = made(work)
    return torch.no_grad()(faster), torch.no_grad()(work)


def _log_prob(name: str, batch: int, size: int, device: str) -> tuple[Work, Work]:
    flow = _model(name, device)
    lr = torch.rand(batch, flow.config.image_channels, size, size, device=device)
    hr = torch.rand(batch, flow.config.image_channels, flow.upscale * size, flow.upscale * size, device=device)

    @torch.no_grad()
    def work() -> None:
        flow.condition(lr).log_prob(hr)

    return _over_convolutions(work, device)


def _step(name: str, batch: int, crop: int, device: str, *, bf16: bool = False) -> tuple[Work, Work]:
    """A step of the likelihood with Adam, over its convolutions with their gradients."""
    flow = _model(name, device)
    optimizer = torch.optim.Adam(flow.parameters())
    hr = torch.rand(batch, flow.config.image_channels, crop, crop, device=device)
    lr = torch.rand(batch, flow.config.image_channels, crop // flow.upscale, crop // flow.upscale, device=device)

    def work() -> None:
        optimizer.zero_grad()
        with _precision(bf16, device):
            loss, _ = likelihood_loss(flow, hr, lr)
        loss.backward()
        optimizer.step()

    return _over_convolutions(work, device, backward=True)


def _chains(chains: int, device: str) -> tuple[Work, Work]:
    """HMC of the shipped model's posterior over the gradients that it asks for, all chains in one batch.

    The draws alone: the look for other modes after them, of a fixed length, is a hundredth of a run of usual length.
    """
    flow = flowsr.load("sr-x4-small").to(device)  # type: ignore[arg-type]
    side = 8 * flow.upscale
    left = torch.arange(side).expand(side, side) < side // 2
    observation = torch.full((3 * side * (side // 2),), 0.5)
    problem = InverseProblem(flow, torch.full((3, 8, 8), 0.5), Mask(left), observation, GaussianNoise(0.1))
    decode, asked = flow.decode, [0]

    def counting(lr: Any, z: Any = None) -> torch.Tensor:
        asked[0] += z[0].shape[:-3].numel() if any(part.requires_grad for part in z) else 0
        return decode(lr, z)

    def work() -> None:
        asked[0] = 0
        flow.decode = counting  # type: ignore[method-assign]
        starts = torch.randn(chains, problem.dims, device=device, generator=torch.Generator(device).manual_seed(0))
        sample_chains(problem.latent_log_likelihood, starts, HMC(trajectory=0.5), num_samples=10, num_warmup=10, seed=0)
        flow.decode = decode  # type: ignore[method-assign]

    def alone() -> None:
        for _ in range(-(-asked[0] // chains)):
            u = torch.zeros(chains, problem.dims, device=device, requires_grad=True)
            energy = 0.5 * u.square().sum() - problem.latent_log_likelihood(u).sum()
            torch.autograd.grad(energy, u)

    flow.requires_grad_(False)
    return work, alone


_PLAIN = "over its convolutions"

ROWS: dict[str, Row] = {
    "decode-2x20": Row(f"decode sr-x4, 2x20², {_PLAIN}", partial(_decode, "sr-x4", 2, 20), 1.12),
    "decode-8x40": Row(f"decode sr-x4, 8x40², {_PLAIN}", partial(_decode, "sr-x4", 8, 40), 1.12, 3),
    "log_prob-2x20": Row(f"log_prob sr-x4, 2x20², {_PLAIN}", partial(_log_prob, "sr-x4", 2, 20), 1.10),
    "log_prob-8x40": Row(f"log_prob sr-x4, 8x40², {_PLAIN}", partial(_log_prob, "sr-x4", 8, 40), 1.10, 3),
    "small-4x40": Row(f"decode sr-x4-small, 4x40², {_PLAIN}", partial(_decode, "sr-x4-small", 4, 40), 1.25, 15),
    "small-1x20": Row(f"decode sr-x4-small, 1x20², {_PLAIN}", partial(_decode, "sr-x4-small", 1, 20), 1.5, 41),
    "rescaling-1x40": Row(f"decode rescaling-x4, 1x40², {_PLAIN}", partial(_decode, "rescaling-x4", 1, 40), 1.2, 15),
    "bf16-2x20": Row(
        "decode sr-x4 in bfloat16, 2x20², over its bf16 ones", partial(_decode, "sr-x4", 2, 20, bf16=True), 1.15
    ),
    "step-fp32": Row(
        "training step sr-x4, 2 crops 80², over its convolutions", partial(_step, "sr-x4", 2, 80), None, 5
    ),
    "step-bf16": Row(
        "the same in bfloat16, over its bf16 convolutions", partial(_step, "sr-x4", 2, 80, bf16=True), None, 5
    ),
    "solve-4": Row("HMC, 4 chains, 32², over its batched gradients", partial(_chains, 4), 1.2, 3),
    "solve-16": Row("HMC, 16 chains, 32², over its batched gradients", partial(_chains, 16), 1.2, 3),
    "solve-256": Row("HMC, 256 chains, 32², over its batched gradients", partial(_chains, 256), None, 3, gpu=True),
    **{
        f"{name}-{batch}x{size}": Row(
            f"decode {preset} by {how}, {batch}x{size}², over as it is",
            partial(_repeated, preset, batch, size, made=made),
            None,
            15,
            gpu=True,
        )
        for name, how, preset, batch, size, made in (
            ("graph", "a CUDA graph", "sr-x4", 2, 20, captured),
            ("graph-small", "a CUDA graph", "sr-x4-small", 4, 40, captured),
            ("graph-small", "a CUDA graph", "sr-x4-small", 1, 20, captured),
            ("compile-small", "torch.compile", "sr-x4-small", 4, 40, compiled),
        )
    },
}
"""The rows by name; AxB² stands for A LR images of BxB pixels."""


def machine(device: str) -> dict[str, str]:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    facts = {"cpu": cpu, "torch": torch.__version__, "threads": str(torch.get_num_threads()), "device": device}
    return facts if device == "cpu" else {**facts, "gpu": torch.cuda.get_device_name()}


def draw(rows: list[Measured], path: Path) -> None:
    """The ratios as bars with their spreads, each with its bar as a line."""
    figure = new_figure(8, 1 + 0.4 * len(rows))
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        low, high = row.spread
        met = row.bar is None or row.ratio <= row.bar
        axes.barh(place, row.ratio, color=PALETTE["blue" if met else "red"], height=0.6)
        axes.plot([low, high], [place, place], color=PALETTE["ink"])
        if row.bar is not None:
            axes.plot([row.bar, row.bar], [place - 0.4, place + 0.4], color=PALETTE["orange"], linewidth=3)
    axes.set_yticks(range(len(rows)), [row.row for row in reversed(rows)])
    axes.axvline(1.0, color=PALETTE["grey"], linewidth=0.8)
    axes.set_xlabel("time over the bare minimum of it (orange: the bar)")
    plain_axes(axes)
    save_figure(figure, path, overwrite=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure the rows asked for, print them, write them; the exit code is 1 if one is beyond its bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; if none is named all that suit the device"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, help="turns, in place of each row's own number")
    parser.add_argument("--give-memory-back", action="store_true", help="do not keep freed memory")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--out", type=Path, help="a file for the picture of them")
    options = parser.parse_args(arguments)
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"expected rows of {', '.join(ROWS)}; got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    for path in filter(None, (options.json, options.out)):
        path.parent.mkdir(parents=True, exist_ok=True)
    kept = not options.give_memory_back and keep_freed_memory()
    about = {**machine(options.device), "freed memory": "kept" if kept else "given back"}
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"{'row':20}{'work':52}{'work':>11} {'alone':>11} {'ratio':>6}", flush=True)
    found: list[Measured] = []
    failed: dict[str, str] = {}
    for name in options.rows or rows_for(options.device):
        try:
            found.append(measure(name, device=options.device, repeats=options.repeats))
            print(found[-1], flush=True)
        except RuntimeError as error:  # a row that cannot run on this machine does not cost the others
            failed[name] = str(error).strip().partition("\n")[0]
            print(f"{name:20}could not be measured: {failed[name]}", flush=True)
        if options.json:  # after each row, as what comes next may take too long
            rows = [{**asdict(row), "verdict": row.verdict} for row in found]
            write_json(options.json, {**about, "rows": rows, "could_not_be_measured": failed})
    if options.out and found:
        draw(found, options.out)
    return int(bool(failed) or any(row.bar is not None and row.ratio > row.bar for row in found))


if __name__ == "__main__":
    sys.exit(main())
