"""The registry of analyses: everything that asks a question of a model, as a function of a model, an image and its LR
image; the result is a tensor. Tests run all of them on other models, other devices and with other defaults."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowsr.calibration import (
    calibrate,
    calibrate_components,
    calibrate_intervals,
    calibrate_mask,
    crps,
    flow_sampler,
    hold_out,
    interval_coverage,
    latent_pit,
    local_c2st,
    local_calibration,
    model_pairs,
    pixel_test,
    recalibrate_temperature,
    score_draws,
    simulation_based_calibration,
    summarize_pairs,
    tarp,
)
from flowsr.distributions import VariationalDequantizer
from flowsr.evaluation import EvaluationPlan, score_pair
from flowsr.images import round_to_8bit
from flowsr.likelihood import (
    PERTURBATIONS,
    bits_per_dim,
    decompose,
    fit_dequantizer,
    inverse_stability,
    latent_diagnostics,
    official_nll,
    out_of_distribution,
    perturbed,
    score_as,
    temperature_sweep,
)
from flowsr.models import ConditionalModel
from flowsr.posterior import (
    Blur,
    Downscale,
    GaussianLR,
    GaussianNoise,
    Identity,
    InverseProblem,
    LaplaceNoise,
    Mask,
    PoissonNoise,
    StreamingSummary,
    interpolate,
    log_evidence,
    lr_consistency,
    resample,
    restore,
    sample_with_temperature_map,
    solve,
    summarize_draws,
    transfer,
    uncertainty_quality,
)
from flowsr.programs import super_resolution
from flowsr.workflows.studies import StudySettings
from flowsr.workflows.study import run_study

Analysis = Callable[[ConditionalModel, Tensor, Tensor], Tensor]


def told(numbers: Any) -> Tensor:
    """Numbers as a tensor of the CPU, whatever the default is."""
    return torch.as_tensor(numbers, dtype=torch.float64, device="cpu")


def seeded() -> torch.Generator:
    """A generator of the CPU, as a user would make it."""
    return torch.Generator().manual_seed(0)


STUDIES: dict[str, Analysis] = {
    "resample": lambda m, hr, lr: resample(m, hr, torch.ones_like(hr[0]), num_samples=2, generator=seeded()),
    "restore": lambda m, hr, lr: restore(m, hr, lr),
    "interpolate": lambda m, hr, lr: interpolate(m, hr, hr.flip(-1), steps=3),
    "transfer": lambda m, hr, lr: transfer(m, hr, lr),
    "temperature map": lambda m, hr, lr: sample_with_temperature_map(m, lr, torch.ones_like(hr[0]), generator=seeded()),
    "summary": lambda m, hr, lr: summarize_draws(m, lr, num_samples=4).mean,
    "consistency": lambda m, hr, lr: told(lr_consistency(m, lr, num_samples=2, cycles=2, generator=seeded()).drift),
    "whitening": lambda m, hr, lr: InverseProblem(m, lr, Identity(), hr, GaussianNoise(0.1)).whiten(hr),
    "unknown lr": lambda m, hr, lr: InverseProblem(
        m, GaussianLR(lr, std=0.1), Identity(), hr, GaussianNoise(0.1)
    ).whiten(hr),
    "latent PIT": lambda m, hr, lr: latent_pit(m, hr.expand(10, 3, 16, 16), lr.expand(10, 3, 4, 4)).ranks,
    "recalibration": lambda m, hr, lr: told(
        recalibrate_temperature(
            m, hr.expand(20, 3, 16, 16), lr.expand(20, 3, 4, 4), num_samples=9, sweeps=1
        ).temperature
    ),
    "pairs": lambda m, hr, lr: model_pairs(m, GaussianLR(lr, std=0.1), 3)[0],
    "sampler": lambda m, hr, lr: flow_sampler(m)(lr, 3, torch.Generator()),
    "study": lambda m, hr, lr: (
        run_study("uncertainty", m, {"hr": hr.float()}, StudySettings(crop=16, num_samples=8)).parts["draws"].mean
    ),
}
"""What is asked of the posterior of any conditional model; all refuse a density of images alone."""


def _solve(method: str, **options) -> Analysis:
    def run(model: ConditionalModel, hr: Tensor, lr: Tensor) -> Tensor:
        mask = torch.ones_like(hr[0])
        mask[:, 8:] = 0
        problem = InverseProblem(model, lr, Mask(mask), Mask(mask)(hr[None])[0], GaussianNoise(0.2))
        return solve(problem, method, num_samples=6, **options).latents

    return run


def _held_out(model: ConditionalModel, hr: Tensor, lr: Tensor):
    return hold_out(flow_sampler(model), hr.expand(20, 3, 16, 16), lr.expand(20, 3, 4, 4), num_samples=19)


def _report(model: ConditionalModel, hr: Tensor, lr: Tensor) -> Tensor:
    report = calibrate(flow_sampler(model), hr.expand(20, 3, 16, 16), lr.expand(20, 3, 4, 4), num_samples=19)
    return told([len(report.to_text())])


def _conformal(model: ConditionalModel, hr: Tensor, lr: Tensor) -> Tensor:
    known = summarize_pairs(flow_sampler(model), hr.expand(3, 3, 16, 16), lr.expand(3, 3, 4, 4), num_samples=8)
    along = calibrate_components(known, alpha=0.3)
    pixels, mask = calibrate_intervals(known, alpha=0.3), calibrate_mask(known, bound=0.1, alpha=0.3)
    return told([along.threshold, along.remainder, pixels.threshold, float(mask.region(known[0]).sum())])


def _observed(operator, noise) -> Analysis:
    """The energy of an observation and its gradient."""

    def run(model: ConditionalModel, hr: Tensor, lr: Tensor) -> Tensor:
        seen = operator().to(hr.device)(hr[None])[0]
        seen = noise.simulate(seen, generator=seeded())
        problem = InverseProblem(model, lr, operator(), seen, noise)
        u = torch.full((1, problem.dims), 0.1, dtype=lr.dtype, device=lr.device, requires_grad=True)
        value = problem.log_likelihood(problem.decode(u)).sum()
        return torch.cat([value.detach()[None], torch.autograd.grad(value, u)[0][0]])

    return run


def _variational(model: ConditionalModel, hr: Tensor, lr: Tensor) -> Tensor:
    torch.manual_seed(0)
    with torch.device("cpu"):
        noise = VariationalDequantizer(hidden_channels=4).to(hr)
    pairs, generator = [(hr[None], lr[None])], seeded()
    return told(fit_dequantizer(noise, model, pairs, steps=2, generator=generator))


def _quality(model: ConditionalModel, hr: Tensor, lr: Tensor) -> Tensor:
    summary = StreamingSummary(levels=tuple(i / 10 for i in range(1, 10)), truth=hr)
    found = summarize_draws(model, lr, num_samples=8, summary=summary)
    return told([len(uncertainty_quality([found], [hr]).to_text())])


def _scores(model: ConditionalModel, hr: Tensor, lr: Tensor) -> Tensor:
    row = score_pair(model, hr, lr, plan=EvaluationPlan(num_samples=2), figures=("psnr", "ssim"))
    kept = [figure.number for key, figure in row.items() if "second" not in key and "time" not in key]
    return told([number for number in kept if number is not None])


def _program(model: ConditionalModel, hr: Tensor, lr: Tensor) -> Tensor:
    from pyro import poutine

    trace = poutine.trace(super_resolution).get_trace(model, lr, hr)
    return torch.as_tensor(trace.log_prob_sum())


def _outliers(model: ConditionalModel, hr: Tensor, lr: Tensor) -> Tensor:
    def pairs(count: int) -> list[tuple[Tensor, Tensor]]:
        return [(round_to_8bit(hr * (1 - i / 9)), lr * (1 - i / 9)) for i in range(count)]

    return told([len(out_of_distribution(model, pairs(4), pairs(3), {"dark": pairs(3)}).to_text())])


def _seeded(function) -> Analysis:
    return lambda m, hr, lr: function(m, hr, lr, seeded())


ANALYSES: dict[str, Analysis] = {
    **STUDIES,
    "svi": _solve("svi", steps=3, guide="lowrank"),
    "nuts": _solve("nuts", num_warmup=2, num_chains=1, max_tree_depth=2),
    **{name: _solve(name, num_warmup=4, num_chains=2) for name in ("hmc", "langevin", "pcn")},
    "map": _solve("map", steps=3),
    "from the mode": _solve("hmc", num_warmup=4, num_chains=2, start="mode", steps=3),
    "evidence": lambda m, hr, lr: told(
        float(
            log_evidence(
                InverseProblem(m, lr, Identity(), hr, GaussianNoise(5.0)), num_particles=8, num_runs=2, num_steps=1
            ).log_evidence
        )
    ),
    "blurred": _observed(lambda: Blur.gaussian(1.0), GaussianNoise(0.1)),
    "small": _observed(lambda: Downscale(2), LaplaceNoise(0.1)),
    "counted": _observed(Identity, PoissonNoise(100.0)),
    "calibration": _report,
    "rank test": lambda m, hr, lr: simulation_based_calibration(_held_out(m, hr, lr)).ranks,
    "tarp": lambda m, hr, lr: tarp(_held_out(m, hr, lr)).ranks,
    "coverage": lambda m, hr, lr: told([len(interval_coverage(_held_out(m, hr, lr)).to_text())]),
    "conformal": _conformal,
    "pixels": lambda m, hr, lr: pixel_test(_held_out(m, hr, lr)).spread,
    "local calibration": lambda m, hr, lr: told([len(local_calibration(_held_out(m, hr, lr)).to_text())]),
    "local classifier": lambda m, hr, lr: local_c2st(_held_out(m, hr, lr)).spread,
    "scores": lambda m, hr, lr: told([len(score_draws(_held_out(m, hr, lr)).to_text())]),
    "crps": lambda m, hr, lr: crps(hr, torch.stack([hr * t for t in (0.5, 1.0, 1.2)])),
    "uncertainty": _quality,
    "convention": _seeded(
        lambda m, hr, lr, g: torch.stack(
            [score_as(m, hr, lr, convention=name, generator=g) for name in ("srflow-noise", "glow", "glow-pytorch")]
        )
    ),
    "bits": _seeded(lambda m, hr, lr, g: bits_per_dim(m, hr, lr, num_samples=3, generator=g, maps=True).variational),
    "terms": _seeded(lambda m, hr, lr, g: torch.stack([t.value for t in decompose(m, hr, lr, generator=g).terms])),
    "variational": _variational,
    "stability": lambda m, hr, lr: told([len(inverse_stability(m, hr, lr).to_text())]),
    "normality": _seeded(
        lambda m, hr, lr, g: told([len(latent_diagnostics(m, [(hr, lr)] * 2, generator=g).to_text())])
    ),
    "outliers": _outliers,
    "sweep": lambda m, hr, lr: told(
        [len(temperature_sweep(m, [(hr, lr)], temperatures=(0.0, 0.8), num_samples=2).to_text())]
    ),
    "perturbations": _seeded(
        lambda m, hr, lr, g: torch.stack([perturbed(hr, kind, generator=g) for kind in PERTURBATIONS])
    ),
    "figures": _scores,
    "program": _program,
}
"""All of them."""

OF_HIERARCHIES: dict[str, Analysis] = {"official": lambda m, hr, lr: official_nll(m, hr, lr)}
"""What is asked of models with an LR image in their latent alone."""

SOLVERS = frozenset(("svi", "nuts", "hmc", "langevin", "pcn", "map", "from the mode", "evidence"))
"""Those that take seconds, and whose noise is the device's own: two devices agree in distribution only."""
