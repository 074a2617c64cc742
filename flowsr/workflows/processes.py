"""Several processes, as torchrun starts them, sharing work out by rank and merging what they found."""

import os
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

from flowsr.errors import FlowsrError

Item = TypeVar("Item")
Found = TypeVar("Found")
Tiles = TypeVar("Tiles", bound=Sized)
Advance = Callable[..., None]
"""Moves a progress bar on."""


@dataclass(frozen=True)
class Processes:
    """This process among others.

    Attributes:
        rank: its number.
        count: how many there are.
        local_rank: its number on this machine, which chooses its accelerator.

    Example:
        >>> Processes(rank=1, count=2).share(["a", "b", "c"])
        ['b']
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> "Processes":
        """What torchrun says in RANK, WORLD_SIZE and LOCAL_RANK; one process without it."""
        count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        return cls(rank=rank, count=count, local_rank=int(os.environ.get("LOCAL_RANK", rank)))

    @property
    def first(self) -> bool:
        """Whether this process writes and prints the results."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Every ``count``-th item from ``rank`` on."""
        return list(items[self.rank :: self.count])

    def device(self, name: str) -> str:
        """The accelerator of this process, where several processes are told "auto" or "cuda"."""
        import torch

        if self.count == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        return f"cuda:{self.local_rank % torch.cuda.device_count()}"

    def gather(self, work: Callable[[], Any]) -> list[Any]:
        """Do this process's work, and return everybody's results, in the order of the ranks, in each process.

        A mistake in one process (ValueError, OSError, FlowsrError) is raised in all of them.

        Raises:
            ValueError: with the message of another process's error.
        """
        if self.count == 1:
            return [work()]
        import torch.distributed as dist

        with self.joined():
            outcome: tuple[bool, Any]
            error: Exception | None = None
            try:
                outcome = (True, work())
            except (ValueError, OSError, FlowsrError) as caught:
                error, outcome = caught, (False, str(caught))
            outcomes: list[Any] = [None] * self.count
            dist.all_gather_object(outcomes, outcome)
        if error is not None:
            raise error
        for good, value in outcomes:
            if not good:
                raise ValueError(value)
        return [value for _, value in outcomes]

    def each(self, items: Sequence[Item], work: Callable[[Item], Found]) -> list[Found]:
        """Share items out, do the work of one's own, and return everybody's results in the order of the items.

        Args:
            items: the same in all processes.
            work: of an item; its result must be one that can be pickled, without tensors on an accelerator.

        Raises:
            ValueError: with the message of another process's error, see :meth:`gather`.

        Example:
            >>> Processes().each([3, 1, 2], lambda item: item**2)
            [9, 1, 4]
        """
        own = self.share(items)
        found: list[Found | None] = [None] * len(items)
        for rank, results in enumerate(self.gather(lambda: [work(item) for item in own])):
            found[rank :: self.count] = results
        return cast(list[Found], found)

    def in_tiles(
        self,
        items: Sequence[Item],
        plan: Callable[[Item], Tiles],
        work: Callable[[Item, Tiles, Advance], Found],
        *,
        progress: Callable[[int], AbstractContextManager[Advance]],
    ) -> list[Found]:
        """Plan all items before the work on any is begun, as a damaged file shall show now; then share out the work.

        Args:
            items: the same in all processes.
            plan: looks at an item; how it is cut.
            work: of an item, with its tiles and what to call after each of them; as of :meth:`each`.
            progress: shows the progress of as many tiles as this process has.

        Raises:
            ValueError: with the message of another process's error, see :meth:`gather`.

        Example:
            >>> from contextlib import nullcontext
            >>> one_bar = lambda tiles: nullcontext(lambda: print("one of", tiles))
            >>> Processes().in_tiles("a", lambda _: range(2), lambda item, tiles, tick: tick(), progress=one_bar)
            one of 2
            [None]
        """
        with self.joined():
            plans = self.each(items, plan)
            with progress(sum(map(len, self.share(plans)))) as advance:
                return self.each(list(zip(items, plans, strict=True)), lambda pair: work(*pair, advance))

    @contextmanager
    def joined(self) -> Iterator[None]:
        """A group of all processes for the time of the work; within it, those who gather several times stay together.

        One share may take long, so nobody is given up within a week.
        """
        import torch.distributed as dist

        if self.count == 1 or dist.is_initialized():
            yield
            return
        dist.init_process_group("gloo", timeout=timedelta(days=7))
        try:
            yield
        finally:
            dist.destroy_process_group()
