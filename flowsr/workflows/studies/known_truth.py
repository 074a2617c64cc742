"""The study of samplers themselves: on posteriors whose truth is known, which need no images of the user's."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from flowsr.errors import did_you_mean
from flowsr.interop import DEEPINV_SAMPLERS, deepinv_samplers
from flowsr.known_posteriors import SAMPLERS, KnownPosterior, Sampler, contest, known_posterior
from flowsr.workflows.studies.known import Advance, Findings, StudySettings, register

_PROBLEMS = ("linear deblurring", "two modes")
_LEFT_OUT = ("exact", "nuts")  # the floor stands beside all; NUTS, one chain after the other, takes half of the time
_DRAWS = 400


def _problems(settings: StudySettings) -> tuple[str, ...]:
    return settings.problems or _PROBLEMS


def _samplers(settings: StudySettings, known: KnownPosterior) -> dict[str, Sampler]:
    """Those asked for, else all of flowsr that are not left out, and those of deepinv that fit, where it is there."""
    everybody = {**SAMPLERS, **DEEPINV_SAMPLERS}
    _refuse_unknown(settings.samplers, everybody)
    if settings.samplers:
        return {name: everybody[name] for name in settings.samplers}
    return {name: SAMPLERS[name] for name in SAMPLERS if name not in _LEFT_OUT} | deepinv_samplers(known)


def _steps(settings: StudySettings) -> int:
    return settings.seeds * sum(len(_samplers(settings, known_posterior(name))) for name in _problems(settings))


def _refuse_unknown(names: Iterable[str], everybody: Mapping[str, Sampler]) -> None:
    for name in names:
        if name not in everybody:
            close = did_you_mean(name, everybody)
            raise ValueError(f"expected a sampler among {', '.join(everybody)}; got {name!r}{close}")


@register(
    "Which posterior sampler comes nearest to a known truth with the same number of gradients?",
    parts=("contest",),
    steps=lambda _, settings: _steps(settings),
    of_images=False,
)
def samplers(settings: StudySettings, advance: Advance) -> Findings:
    """Samplers on posteriors in closed form, by quadrature or by long chains, under one budget."""
    problems = [known_posterior(name) for name in _problems(settings)]
    counts: dict[str, Any] = {
        "gradients": settings.budget,
        "num_samples": settings.num_samples or _DRAWS,
        "seeds": settings.seeds,
        "seed": settings.seed,
        "classify": settings.classify,
        "on_run": advance,
    }
    found = [contest([known], _samplers(settings, known), **counts) for known in problems]
    together = replace(found[0], standings=tuple(one.standings[0] for one in found))
    names = {score.sampler for standing in together.standings for score in standing.scores}
    return Findings(f"{len(names)} samplers on {', '.join(_problems(settings))}", {"contest": together})
