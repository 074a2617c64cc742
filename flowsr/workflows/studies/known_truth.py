"""The study of samplers themselves: on posteriors whose truth is known, which need no images of the user's."""

from collections.abc import Iterable

from flowsr.errors import did_you_mean
from flowsr.known_posteriors import SAMPLERS, contest, known_posterior
from flowsr.workflows.studies.known import Advance, Findings, StudySettings, register

_PROBLEMS = ("linear deblurring", "two modes")
_LEFT_OUT = ("exact", "nuts")  # the floor stands beside all; NUTS, one chain after the other, takes half of the time
_DRAWS = 400


def _problems(settings: StudySettings) -> tuple[str, ...]:
    return settings.problems or _PROBLEMS


def _samplers(settings: StudySettings) -> tuple[str, ...]:
    return settings.samplers or tuple(name for name in SAMPLERS if name not in _LEFT_OUT)


def _refuse_unknown(names: Iterable[str]) -> None:
    for name in names:
        if name not in SAMPLERS:
            close = did_you_mean(name, SAMPLERS)
            raise ValueError(f"expected a sampler among {', '.join(SAMPLERS)}; got {name!r}{close}")


@register(
    "Which posterior sampler comes nearest to a known truth with the same number of gradients?",
    parts=("contest",),
    steps=lambda _, settings: len(_problems(settings)) * len(_samplers(settings)) * settings.seeds,
    of_images=False,
)
def samplers(settings: StudySettings, advance: Advance) -> Findings:
    """Samplers on posteriors in closed form, by quadrature or by long chains, under one budget."""
    names = _samplers(settings)
    _refuse_unknown(names)
    found = contest(
        [known_posterior(name) for name in _problems(settings)],
        {name: SAMPLERS[name] for name in names},
        gradients=settings.budget,
        num_samples=settings.num_samples or _DRAWS,
        seeds=settings.seeds,
        seed=settings.seed,
        classify=settings.classify,
        on_run=advance,
    )
    return Findings(f"{len(names)} samplers on {', '.join(_problems(settings))}", {"contest": found})
