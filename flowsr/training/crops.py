"""Random crops as batches: which images, where, and how turned, all a function of (seed, number of the sample)."""

import copy
import math
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from flowsr.errors import ImageError
from flowsr.images import bicubic_down, bicubic_resize, round_to_8bit
from flowsr.training.data import Degradation, ImageFolder

_MASK = (1 << 64) - 1


def derive_seed(*keys: int) -> int:
    """A seed from integers, well mixed (the splitmix64 finalizer over each), in [0, 2^63).

    Example:
        >>> derive_seed(0, 1) != derive_seed(1, 0)
        True
    """
    state = 0
    for key in keys:
        state = (state ^ (key & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


def sample_generators(seeds: Tensor, *, stream: int, device: torch.device) -> list[torch.Generator]:
    """One generator for each sample of a batch, different for each stream."""
    return [torch.Generator(device).manual_seed(derive_seed(seed, stream)) for seed in seeds.tolist()]


@dataclass
class Batch:
    """Crops of one micro-batch.

    Attributes:
        hr: 8-bit values in [0, 1], ``(B, C, crop, crop)``.
        lr: ``(B, C, crop/s, crop/s)``, rounded to 8 bits; None for a density of images alone.
        seeds: ``(B,)``, from which each sample's noise is drawn.
        unreadable: messages about images that could not be read and were replaced by others.
        lost: why there are no crops, from a worker process, whose errors arrive with a traceback as their text.
    """

    hr: Tensor
    lr: Tensor | None
    seeds: Tensor
    unreadable: tuple[str, ...] = ()
    lost: str = ""

    def __getstate__(self) -> dict[str, Any]:
        # A worker's tensors travel through shared memory, of which containers have little; arrays through a pipe.
        arrays = {name: value.numpy() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return {**vars(self), **arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        tensors = {name: torch.from_numpy(value) for name, value in state.items() if isinstance(value, np.ndarray)}
        vars(self).update({**state, **tensors})

    def to(self, device: torch.device, *, dtype: torch.dtype = torch.float32, channels_last: bool = False) -> "Batch":
        """The batch on a device, HR optionally in channels-last memory order."""
        hr = self.hr.to(device, dtype, non_blocking=True)
        if channels_last:
            hr = hr.contiguous(memory_format=torch.channels_last)
        lr = None if self.lr is None else self.lr.to(device, dtype, non_blocking=True)
        return Batch(hr, lr, self.seeds, self.unreadable)


class CropBatches(Dataset):
    """Micro-batches of random crops by number; the same number gives the same batch in any process, at any time.

    Sample n of a run is in epoch ``n // N`` of the N images and takes the next image of that epoch's permutation.
    Micro-batch m of ``accumulate`` per step holds the samples of this rank, so that the samples of a step are the same
    for any number of processes and any accumulation.

    Args:
        folder: the images.
        indices: which of them to use.
        crop: side of the HR crop, a multiple of ``upscale``.
        upscale: the factor s; None for crops without LR images.
        batch_size: samples per step over all ranks and micro-batches.
        seed: of the run.
        flips: mirror half of the crops.
        rotations: turn crops by multiples of 90 degrees.
        scales: factors in (0, 1], one drawn for each crop, by which the image is shrunk first (bicubic, 8-bit): smaller
            images are sharper and lose JPEG artifacts.
        grain: at least 0; each crop gets, before it is shrunk, white Gaussian noise of standard deviation ``grain·u²``
            grey levels, u uniform in [0, 1), so that the noise of a sensor or of film is not unlike all that was seen.
        degradation: how LR is made from HR; bicubic by default. Not used for paired images.
        rank: number of this process.
        world_size: number of processes.
        accumulate: micro-batches per step.

    Raises:
        ValueError: if sizes do not fit each other.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from flowsr.images import write_image
        >>> path = Path(tempfile.mkdtemp())
        >>> for name in ("a.png", "b.png"):
        ...     write_image(path / name, torch.rand(3, 40, 48))
        >>> batches = CropBatches(ImageFolder(path), (0, 1), crop=32, upscale=4, batch_size=4)
        >>> batches[7].hr.shape, batches[7].lr.shape
        (torch.Size([4, 3, 32, 32]), torch.Size([4, 3, 8, 8]))
        >>> torch.equal(batches[7].hr, batches[7].hr)  # a batch is a function of seed and number
        True
    """

    def __init__(
        self,
        folder: ImageFolder,
        indices: Sequence[int],
        *,
        crop: int,
        upscale: int | None,
        batch_size: int,
        seed: int = 0,
        flips: bool = True,
        rotations: bool = True,
        scales: Sequence[float] = (1.0,),
        grain: float = 0.0,
        degradation: Degradation | None = None,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
    ) -> None:
        if upscale is not None and crop % upscale:
            raise ValueError(f"expected a crop that is a multiple of {upscale}; got {crop}")
        if upscale is None and degradation is not None:
            raise ValueError("expected no degradation for crops without LR images; got one: leave it out")
        if batch_size % (world_size * accumulate):
            raise ValueError(
                f"expected a batch size that is a multiple of processes x accumulation = {world_size * accumulate}; "
                f"got {batch_size}"
            )
        if not 0 <= grain < math.inf:
            raise ValueError(f"expected a grain of at least 0 grey levels; got {grain}")
        if not scales or any(not 0 < scale <= 1 for scale in scales):
            raise ValueError(f"expected scales in (0, 1]; got {tuple(scales)}")
        self.folder, self.indices = folder, list(indices)
        self.paired = folder.pairs[0][1] is not None
        if self.paired and tuple(scales) != (1.0,):
            raise ValueError("expected scales = (1,) for paired images: shrinking would change the LR images too")
        if self.paired and grain:
            raise ValueError("expected grain = 0 for paired images: their LR images would lack it")
        self.crop, self.upscale, self.batch_size, self.seed = crop, upscale, batch_size, seed
        self.flips, self.rotations, self.scales, self.degradation = flips, rotations, tuple(scales), degradation
        self.grain = grain
        self.rank, self.world_size, self.accumulate = rank, world_size, accumulate
        self._epoch: tuple[int, list[int]] = (-1, [])

    def __getitem__(self, number: int) -> Batch:
        step, micro = divmod(number, self.accumulate)
        size = self.batch_size // (self.world_size * self.accumulate)
        first = step * self.batch_size + (self.rank * self.accumulate + micro) * size
        crops, lrs, messages = [], [], []
        for n in range(first, first + size):
            try:
                hr, lr = self._sample(n, messages)
            except ImageError as error:
                if get_worker_info() is None:
                    raise
                return Batch(torch.empty(0, device="cpu"), None, torch.empty(0, device="cpu"), lost=str(error))
            crops.append(hr)
            if lr is not None:
                lrs.append(lr)
        hr = torch.stack(crops).float().div(255.0)
        lr = torch.stack(lrs) if lrs else None
        if lr is None and self.upscale is not None:
            lr = bicubic_down(hr, self.upscale)
        seeds = torch.tensor([derive_seed(self.seed, n, 1) for n in range(first, first + size)], device="cpu")
        return Batch(hr, None if lr is None else round_to_8bit(lr), seeds, tuple(messages))

    def whole(self) -> "CropBatches":
        """The same samples with all of a step's in one batch: what a run with one process and no accumulation sees."""
        one = copy.copy(self)
        one.rank, one.world_size, one.accumulate = 0, 1, 1
        return one

    def loader(self, start: int, stop: int, *, workers: int = 0) -> DataLoader:
        """A loader of the micro-batches of steps ``start`` to ``stop``, in order."""
        return DataLoader(
            self,
            batch_size=None,
            sampler=range(start * self.accumulate, stop * self.accumulate),
            num_workers=workers,
            collate_fn=_unchanged,
            # Its own, or each start would draw from the global one, and a resumed run have another than one at a go.
            generator=torch.Generator(),
            worker_init_fn=_start_worker if workers else None,
        )

    def _sample(self, n: int, messages: list[str]) -> tuple[Tensor, Tensor | None]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, n, 0))
        hr, lr = self._images(n, messages)
        scale = self.scales[_randint(len(self.scales), generator)]
        # An image may be too small to be shrunk as far.
        side = min(round(self.crop / scale), *hr.shape[-2:])
        s = self.upscale or 1
        grid = s if lr is not None else 1
        top = grid * _randint((hr.shape[-2] - side) // grid + 1, generator)
        left = grid * _randint((hr.shape[-1] - side) // grid + 1, generator)
        flip = self.flips and bool(_randint(2, generator))
        turns = _randint(4, generator) if self.rotations else 0
        hr = _turn(hr[:, top : top + side, left : left + side], flip, turns)
        if self.grain:
            hr = _grain(hr, self.grain, generator)
        if side != self.crop:
            hr = _shrink(hr, self.crop)
        if lr is not None:
            low, edge = (top // s, left // s), self.crop // s
            lr = _turn(lr[:, low[0] : low[0] + edge, low[1] : low[1] + edge], flip, turns).float().div(255.0)
        elif self.degradation is not None:
            lr = self.degradation(hr.float().div(255.0), upscale=s, generator=generator)
        return hr, lr

    def _images(self, n: int, messages: list[str]) -> tuple[Tensor, Tensor | None]:
        epoch, place = divmod(n, len(self.indices))
        if self._epoch[0] != epoch:
            shuffle = torch.Generator().manual_seed(derive_seed(self.seed, epoch, 2))
            self._epoch = (epoch, torch.randperm(len(self.indices), generator=shuffle, device=shuffle.device).tolist())
        for offset in range(len(self.indices)):
            index = self.indices[self._epoch[1][(place + offset) % len(self.indices)]]
            try:
                return self.folder[index]
            except ImageError as error:
                if self.folder.strict:
                    raise
                messages.append(str(error))
        raise ImageError(
            f"expected at least one readable image; none of {len(self.indices)} is left, the last as {messages[-1]}"
        )


def _grain(hr: Tensor, most: float, generator: torch.Generator) -> Tensor:
    width = most * float(torch.rand((), generator=generator, device=generator.device)) ** 2
    noise = torch.randn(hr.shape, generator=generator, device=generator.device)
    return hr.float().add(noise, alpha=width).round().clamp(0, 255).to(torch.uint8)


def _shrink(hr: Tensor, side: int) -> Tensor:
    return bicubic_resize(hr.float(), size=(side, side)).round().clamp(0, 255).to(torch.uint8)


def _turn(image: Tensor, flip: bool, turns: int) -> Tensor:
    return torch.rot90(image.flip(-1) if flip else image, turns, (-2, -1)).contiguous()


def _randint(high: int, generator: torch.Generator) -> int:
    return int(torch.randint(high, (), generator=generator, device=generator.device))


def _unchanged(batch: Any) -> Any:
    return batch


def end_workers(batches: Any) -> None:
    """End the processes behind an iterator of batches now, whatever still refers to it.

    They ignore the signal by which Python would end them at its exit; a traceback that is kept, as an interactive
    session does, would keep them, and the exit would wait for ever. As Lightning does, for want of a public way.
    """
    end = getattr(batches, "_shutdown_workers", None)
    if end is not None:
        end()


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C and schedulers signal the whole process group; the training process decides when its workers end.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # What a worker finds unreadable travels in the batch; its own warnings would be printed by each worker.
    warnings.simplefilter("ignore")
