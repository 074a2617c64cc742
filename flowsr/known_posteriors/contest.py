"""Samplers against known posteriors under one budget: several seeds, a floor beside each figure, table and picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from flowsr.calibration import HeldOut, tarp
from flowsr.known_posteriors.accuracy import accuracy, chosen_draws, joined_pairs, mixing, nominal_coverage
from flowsr.known_posteriors.accuracy import reference_pairs as pairs_of
from flowsr.known_posteriors.budget import Budget, Sampler
from flowsr.known_posteriors.contenders import SAMPLERS, exact_sampler
from flowsr.known_posteriors.contest_figure import draw_contest
from flowsr.known_posteriors.truth import RHAT_OF_REFERENCE, KnownPosterior
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FLOORS = 20  # runs of the exact sampler that the floor is the mean of
_BEYOND = 3.5  # standard deviations of such runs, from which on a figure is not chance
_OVERSPENT = 1.1
_MARKED = ("mean_error", "std_bias", "std_error", "coverage", "energy")


@dataclass(frozen=True)
class Score:
    """What a sampler reached on a problem.

    Attributes:
        sampler: its name.
        figures: of each seed, by name: those of :func:`flowsr.known_posteriors.accuracy`, ``evidence_error`` in nats,
            ``ess`` and ``rhat`` of its chains, ``spent`` in gradients, ``seconds`` of CPU and ``judged`` draws; NaN
            where there is none.
        tarp: p-value of all seeds together; NaN without reference draws.
        reason: why there is nothing, if the sampler refused the problem.
    """

    sampler: str
    figures: Mapping[str, tuple[float, ...]]
    tarp: float = math.nan
    reason: str = ""

    def mean(self, name: str) -> float:
        """Of a figure over the seeds that have it; NaN if none has."""
        found = [value for value in self.figures.get(name, ()) if not math.isnan(value)]
        return sum(found) / len(found) if found else math.nan

    def half_range(self, name: str) -> float:
        """Half of what lies between the smallest and the largest of the seeds."""
        found = [value for value in self.figures.get(name, ()) if not math.isnan(value)]
        return (max(found) - min(found)) / 2 if found else math.nan

    @property
    def rate(self) -> float:
        """Effective draws per 1000 gradients spent, the warm-up included."""
        return 1000 * self.mean("ess") / self.mean("spent") if self.mean("spent") else math.nan


@dataclass(frozen=True)
class Standing:
    """All scores on one problem.

    Attributes:
        problem: its name.
        about: it, in words.
        how: its posterior is known.
        rhat: the largest R-hat of its reference; 1 if exact.
        floors: mean and standard deviation of each figure over runs of exact draws, as many as are asked for.
        scores: of the samplers.
        floors_of_fewer: the same of runs of fewer draws, by their number, where fewer of a sampler are judged.
    """

    problem: str
    about: str
    how: str
    rhat: float
    floors: Mapping[str, tuple[float, float]]
    scores: tuple[Score, ...]
    floors_of_fewer: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)

    def beyond(self, score: Score, name: str) -> bool:
        """Whether a figure is further from its floor than as many exact draws get; False where that is not known."""
        floors = self.floors_of_fewer.get(f"{score.mean('judged'):.0f}", self.floors)
        mean, spread = floors.get(name, (math.nan, math.nan))
        return abs(score.mean(name) - mean) > _BEYOND * spread

    def found(self, score: Score) -> tuple[str, ...]:
        """The figures that tell a sampler from exact draws."""
        return tuple(name for name in _MARKED if self.beyond(score, name))


@dataclass(frozen=True)
class Contest(Result):
    """Samplers on known posteriors.

    Attributes:
        standings: problem by problem.
        gradients: the budget of each run.
        num_samples: draws that are judged.
        seeds: number of runs of each sampler on each problem.
    """

    standings: tuple[Standing, ...]
    gradients: int
    num_samples: int
    seeds: int = field(default=1)

    def to_text(self) -> str:
        """A table for each problem, and what its columns are."""
        return "\n\n".join([*map(self._table, self.standings), "\n".join(self._notes())])

    def _table(self, standing: Standing) -> str:
        head = ["sampler", "spent", "mean err", "std bias", f"cover {nominal_coverage(self.num_samples):.0%}", "energy"]
        head += ["C2ST", "TARP p", "evidence", "ESS/1000", "ESS/s", "ms/grad"]
        rows = [self._floor_row(standing), *(self._row(standing, score) for score in standing.scores)]
        notes = [f"{score.sampler}: {score.reason}" for score in standing.scores if score.reason]
        title = f"{standing.problem} ({standing.about}; posterior by {standing.how})"
        if standing.rhat >= RHAT_OF_REFERENCE:
            title += f"\nReference NOT attained: its R-hat is {standing.rhat:.3f}, asked was below {RHAT_OF_REFERENCE}"
        return text_table(head, rows, title=title, notes=notes)

    def _floor_row(self, standing: Standing) -> list[str]:
        floors = {name: mean for name, (mean, _) in standing.floors.items()}
        cells = [_cell(floors.get(name, math.nan), form) for name, form in _ACCURACY]
        return ["exact draws", "–", *cells, *["–"] * 5]

    def _row(self, standing: Standing, score: Score) -> list[str]:
        spent = score.mean("spent") / self.gradients
        told = [f"{spent:.0%}" + ("!" if spent > _OVERSPENT else "")] if not score.reason else ["–"]
        told += [_cell(score.mean(name), form, marked=standing.beyond(score, name)) for name, form in _ACCURACY]
        seconds, taken = score.mean("seconds"), score.mean("spent")
        told += [
            _cell(score.tarp, "{:.2g}"),
            _cell(score.mean("evidence_error"), "{:+.2f}"),
            _cell(score.rate, "{:.1f}"),
        ]
        told += [_cell(score.mean("ess") / seconds if seconds else math.nan, "{:.1f}")]
        told += [_cell(1000 * seconds / taken if taken else math.nan, "{:.2f}")]
        judged = score.mean("judged")
        return [score.sampler + (f" ({judged:.0f})" if judged < self.num_samples else ""), *told]

    def _notes(self) -> list[str]:
        return [
            f"Each of {self.seeds} runs may take {self.gradients} gradients, warm-up included: ! took more.",
            f"{self.num_samples} draws of each are judged, or the number in brackets; figures are means over the runs.",
            "exact draws: what as many independent draws get, the floor; * is further from the floor of",
            "as many draws as are judged than chance allows",
            "mean err: error of the mean in units of the posterior's std; std bias: how much too wide",
            "cover: of reference draws by central intervals; energy: distance of distributions, 0 to 1",
            "C2ST: accuracy of a classifier, 0.5 if right; TARP p: of distances to draws of the prior",
            "evidence: error in nats; ESS/1000: effective draws of the worst pixel per 1000 gradients",
            "ESS/s: per second of CPU; ms/grad: all time over all gradients, which ranks no algorithm",
        ]

    def plot(self, ax: object = None) -> Figure:
        """Errors of mean and std beside their floors, and effective draws per gradient: a row for each problem."""
        return draw_contest(self)


_ACCURACY = (
    ("mean_error", "{:.3f}"),
    ("std_bias", "{:+.1%}"),
    ("coverage", "{:.1%}"),
    ("energy", "{:.4f}"),
    ("c2st", "{:.2f}"),
)


def _cell(value: float, form: str, *, marked: bool = False) -> str:
    return "–" if math.isnan(value) else form.format(value).replace("-", "−") + "*" * marked


def contest(
    problems: Sequence[KnownPosterior],
    samplers: Mapping[str, Sampler] | None = None,
    *,
    gradients: int = 4000,
    num_samples: int = 400,
    seeds: int = 3,
    seed: int = 0,
    classify: bool = False,
    on_run: Callable[[], None] | None = None,
) -> Contest:
    """Run samplers on known posteriors under one budget of gradients, and measure how far each is from the truth.

    Gradients are counted by the model, see :class:`flowsr.known_posteriors.Budget`, decoding for the figures apart.

    Cost: ``len(problems)·len(samplers)·seeds`` runs of ``gradients`` gradients, and the figures of each.

    Args:
        problems: known posteriors.
        samplers: functions of a problem, a budget, a number of draws and a seed, by name; by default all of
            :data:`flowsr.known_posteriors.SAMPLERS`.
        gradients: of each run, at least 1.
        num_samples: draws to judge, at least 20.
        seeds: runs of each, at least 1.
        seed: of the first run; the next ones have the next.
        classify: whether to train the classifier of C2ST too, which takes sbi and a second or two each.
        on_run: called after each run, for a progress bar.

    Raises:
        ValueError: for numbers out of range, or no problems.
        MissingExtraError: to classify without sbi.

    Example:
        >>> from flowsr.known_posteriors import FAULTS, known_posterior
        >>> wide = {"wide": FAULTS["std 1.3 times too wide"]}
        >>> standing = contest([known_posterior("linear deblurring")], wide, seeds=1).standings[0]
        >>> standing.found(standing.scores[0])
        ('std_bias', 'std_error', 'coverage', 'energy')
    """
    if not problems or seeds < 1 or num_samples < 20:
        raise ValueError(
            f"expected a problem, seeds >= 1 and num_samples >= 20; got {len(problems)}, {seeds} and {num_samples}"
        )
    chosen, advance = SAMPLERS if samplers is None else samplers, on_run or (lambda: None)
    standings = []
    for known in problems:
        scores = [
            _score(name, sampler, known, gradients, num_samples, range(seed, seed + seeds), classify, advance)
            for name, sampler in chosen.items()
        ]
        how, rhat = known.reference.how, known.reference.rhat
        floors = floors_of(known, num_samples=num_samples)
        # A single draw has no spread: a mode is held to the floor of all, or its lack of one would be right.
        judged = {round(score.mean("judged")) for score in scores if score.figures} - {1, num_samples}
        fewer = {str(count): floors_of(known, num_samples=count) for count in sorted(judged)}
        standings.append(Standing(known.name, known.about, how, rhat, floors, tuple(scores), fewer))
    return Contest(tuple(standings), gradients, num_samples, seeds)


def floors_of(known: KnownPosterior, *, num_samples: int) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each figure over runs of exact draws.

    Where there are none, the errors that independent normal draws would have, those of the reference included, without
    their scatter.

    Cost: the figures of 20 runs.

    Example:
        >>> from flowsr.known_posteriors import known_posterior
        >>> mean, spread = floors_of(known_posterior("linear deblurring"), num_samples=100)["mean_error"]
        >>> abs(mean - 0.1) < 0.01  # 1/√100
        True
    """
    if known.reference.exact is None:
        mean = math.hypot(num_samples**-0.5, known.reference.mean_error)
        std = math.hypot((2 * num_samples) ** -0.5, known.reference.std_error)
        return {"mean_error": (mean, math.nan), "std_error": (std, math.nan), "std_bias": (0.0, math.nan)}
    runs = []
    for number in range(_FLOORS):
        images = exact_sampler(known, Budget(1), num_samples, 1000 + number).images
        assert images is not None
        runs.append(accuracy(known, images, seed=1000 + number))
    names = [name for name in runs[0] if name != "c2st"]
    table = {name: torch.tensor([run[name] for run in runs], device="cpu") for name in names}
    return {name: (float(values.mean()), float(values.std())) for name, values in table.items()}


def _score(
    name: str,
    sampler: Sampler,
    known: KnownPosterior,
    gradients: int,
    num_samples: int,
    seeds: range,
    classify: bool,
    advance: Callable[[], None],
) -> Score:
    rows: list[dict[str, float]] = []
    pairs: list[HeldOut] = []
    for seed in seeds:
        budget = Budget(gradients)
        try:
            with budget.counting(known.problem):
                draws = sampler(known, budget, num_samples, seed)
        except ValueError as error:
            for _ in range(seed, seeds.stop):
                advance()
            return Score(name, {}, reason=str(error))
        images = chosen_draws(known, draws, num_samples)
        ess, rhat = mixing(known, draws)
        evidence = (draws.log_evidence, known.reference.log_evidence)
        error = math.nan if None in evidence else evidence[0] - evidence[1]  # type: ignore[operator]
        told = {"ess": ess, "rhat": rhat, "evidence_error": error, "spent": budget.spent, "seconds": budget.seconds}
        told["judged"] = len(images)
        rows.append({**accuracy(known, images, seed=seed, classify=classify), **told})
        if (found := pairs_of(known, images, seed=seed)) is not None:
            pairs.append(found)
        advance()
    p_value = tarp(joined_pairs(pairs)).p_values[0] if sum(map(len, pairs)) >= 10 else math.nan
    return Score(name, {key: tuple(row[key] for row in rows) for key in rows[0]}, p_value)
