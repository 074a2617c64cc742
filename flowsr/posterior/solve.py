"""Solvers of inverse problems behind one call: each hands what it found to the same judgement."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from flowsr.posterior.chains import run_batch, run_nuts
from flowsr.posterior.diagnostics import (
    Diagnostics,
    chain_remarks,
    chain_statistics,
    chains_settled,
    residual_interval,
    residual_remarks,
    start_remarks,
)
from flowsr.posterior.guides import fit_guide
from flowsr.posterior.inverse_problem import InverseProblem, isolated
from flowsr.posterior.modes import find_mode, unvisited_modes
from flowsr.posterior.solution import Solution
from flowsr.posterior.solver_settings import Found, Guide, Method, Place, SolverSettings
from flowsr.statistics.scalar_summaries import image_summaries

SOLVERS: dict[Method, Callable[[InverseProblem, SolverSettings], Found]] = {
    "nuts": run_nuts,
    "hmc": run_batch,
    "langevin": run_batch,
    "pcn": run_batch,
    "svi": fit_guide,
    "map": find_mode,
}
"""What runs each method."""

_SCATTER = {
    "svi (normal)": "Independent latents scatter in directions that the observation fixes: guide='lowrank' or 'flow' "
    "follows their correlations.",
    "svi (lowrank)": "A guide of low rank scatters in directions that the observation fixes beyond its rank: raise "
    "rank and steps, or let method='hmc' start at its draws, start=solution.latents[0, :4].",
}
"""What a residual above that of the noise also says of a guide."""


def solve(
    problem: InverseProblem,
    method: Method = "nuts",
    *,
    num_samples: int = 500,
    num_warmup: int = 300,
    num_chains: int = 4,
    start: Place | Tensor | Solution = "draw",
    seed: int = 0,
    target_accept: float | None = None,
    trajectory: float = 1.5,
    max_tree_depth: int = 6,
    num_steps: int | None = None,
    guide: Guide = "normal",
    rank: int | None = None,
    steps: int = 1000,
    learning_rate: float = 0.03,
    num_particles: int = 4,
    on_step: Callable[[], None] | None = None,
) -> Solution:
    """Draw from the posterior of an inverse problem, or approximate it, and say how far the result can be trusted.

    ========  =======================================  =================================  ============================
    method    what it is                               draws of                           needs
    ========  =======================================  =================================  ============================
    nuts      Pyro's No-U-Turn sampler                 the posterior                      gradients
    hmc       :class:`HMC`, all chains at once         the posterior                      gradients
    langevin  MALA, :class:`Langevin`                  the posterior, slowly              gradients
    pcn       :class:`CrankNicolson`                   the posterior, slowly              nothing
    svi       Pyro's SVI with an automatic guide       the closest guide                  gradients
    map       Adam on the log joint density            none: one image                    gradients
    ========  =======================================  =================================  ============================

    SVI with the guide "normal" (AutoDiagonalNormal) ignores correlations of latents and so understates variances;
    "lowrank" (AutoLowRankMultivariateNormal) has some of them, "flow" (AutoNormalizingFlow) is not Gaussian. The mode
    (MAP) in latent space is not the mode of ``p(hr)``, which depends on the coordinates.

    Whatever the method, a short climb from four draws of the prior looks for modes that no draw is near, and what is
    wrong is said in ``diagnostics.remarks``.

    Cost: one decoding pass with its gradient per leapfrog step, of all chains together for hmc and langevin, of one
    chain after the other for nuts (up to ``2**max_tree_depth`` steps per draw). pCN takes ``num_steps`` passes without
    a gradient per draw, SVI and MAP one pass of ``num_particles`` images per step.

    Args:
        problem: the inverse problem.
        method: see above.
        num_samples: draws per chain after the warm-up, at least 4; draws of the guide for SVI.
        num_warmup: draws discarded while step size and mass matrix adapt.
        num_chains: chains, which start at different places; at least 2 to notice that one is stuck, 4 to seldom miss
            one mode of two.
        start: of chains. Wider apart than the posterior are "draw", draws of the prior, each second one the mirror
            image of the one before; "mode", places around the modes that are climbed to from there, which scatter twice
            as wide as the posterior of a linear problem (``flowsr.posterior.modes.scattered_modes``); "laplace",
            the same places, and for hmc, langevin and pcn coordinates in which the Gauss-Newton matrix there is the
            identity, fitted anew while warming up (``flowsr.posterior.curvature.laplace_coordinates``): the choice
            where the data say much. Or a solution of this problem by svi, for draws of its guide, whose covariance is
            the metric of hmc and langevin and the proposal of pcn; or by map, for draws around the mode with Laplace's
            covariance. A guide that misses a part of the posterior starts no chain there, so that R-hat may be fooled:
            what then tells is ``other_modes``. Or whitened vectors, as of :meth:`InverseProblem.whiten`: one per chain
            ``(num_chains, dims)``, or one ``(dims,)``, near which all start, which is remarked. SVI and MAP start at
            the vector, at the mean of the solution, or at the mean of the prior. NUTS takes places alone.
        seed: of all randomness; torch's global generator is left as it was.
        target_accept: acceptance probability to adapt the step to; 0.8 for nuts, 0.3 for pcn, and as harmonic mean over
            chains 0.65 for hmc and 0.574 for langevin.
        trajectory: length of HMC trajectories to start from, in the prior's standard deviations; it adapts while
            warming up, if there are two chains. At most 1024 steps.
        max_tree_depth: of NUTS, at least 1.
        num_steps: proposals per draw of pcn (20) and langevin (10), at least 1.
        guide: of SVI.
        rank: of the guide "lowrank", by default Pyro's, the square root of the dimension; or directions of Laplace's
            covariance, by default 256, which cost 266 gradients and up to 2128 decoding passes at each fit.
        steps: optimization steps of SVI and MAP.
        learning_rate: of Adam, falling to a hundredth.
        num_particles: images per SVI step.
        on_step: called after each draw, or each optimization step, for a progress bar: ``num_chains·(num_warmup +
            num_samples)`` times, or ``steps``. After the warm-up of chains it may raise
            ``flowsr.posterior.EnoughDraws``, to end them with the draws there are, at least 4.

    Returns:
        The draws, with diagnostics and timings. Chains that have not mixed are no error; see
        ``diagnostics.remarks``, or call :meth:`Solution.require_mixed`.

    Raises:
        ValueError: for an unknown method, numbers out of range, or an operator without gradients where they are needed.

    References:
        Hoffman and Gelman, The No-U-Turn Sampler (JMLR 2014); Kucukelbir et al., Automatic differentiation variational
        inference (JMLR 2017); Cotter et al. (Statistical Science 2013) for pCN, and Pinski et al. (SIAM J. Sci. Comput.
        2015), section 4, for its proposals by a guide.

    Example:
        >>> from flowsr.posterior import GaussianNoise, Identity, LinearGaussianFlow
        >>> flow, lr = LinearGaussianFlow(detail_std=(0.1,)), torch.full((1, 2, 2), 0.5)
        >>> problem = InverseProblem(flow, lr, Identity(), torch.rand(1, 4, 4), GaussianNoise(0.1))
        >>> solution = solve(problem, "hmc", num_samples=50, num_warmup=30, num_chains=2)
        >>> solution.latents.shape, solution.images().shape
        (torch.Size([2, 50, 12]), torch.Size([100, 1, 4, 4]))
    """
    settings = SolverSettings(
        method=method,
        num_samples=num_samples,
        num_warmup=num_warmup,
        num_chains=num_chains,
        start=start,
        seed=seed,
        target_accept=target_accept,
        trajectory=trajectory,
        max_tree_depth=max_tree_depth,
        num_steps=num_steps,
        guide=guide,
        rank=rank,
        steps=steps,
        learning_rate=learning_rate,
        num_particles=num_particles,
        advance=on_step or (lambda: None),
    )
    settings.check(problem)
    with isolated(problem, seed):
        return _judged(problem, SOLVERS[method](problem, settings), settings)


def _judged(problem: InverseProblem, found: Found, settings: SolverSettings) -> Solution:
    begin = time.perf_counter()
    latents = found.latents
    if not bool(torch.isfinite(latents).all()):
        raise ValueError(
            f"expected finite draws; got NaN or infinity from {found.name}: lower learning_rate, or raise target_accept"
        )
    summaries = _summaries(problem, latents)
    rms = float(summaries["residual"].double().square().mean().sqrt())
    with torch.no_grad():
        some = latents.flatten(0, 1)[:: max(1, latents[..., 0].numel() // 16)]
        parts = some.to(problem.lr).split(problem.batch(16, gradients=False))
        clean = torch.cat([problem.observe(problem.decode(part)) for part in parts])
    expected = residual_interval(problem.noise, clean, informative=problem.informative, seed=settings.seed)
    rhat, ess, remarks = _chain_facts(found, summaries, arrived=rms <= expected[1])
    remarks += found.remarks
    remarks += residual_remarks(rms, expected, mode=found.name == "map")
    if found.name in _SCATTER and rms > expected[1]:
        remarks.append(_SCATTER[found.name])
    work = settings.steps if settings.optimizes else settings.num_chains * (settings.num_samples + settings.num_warmup)
    others = unvisited_modes(problem, latents.flatten(0, 1), steps=min(100, max(50, work // 10)))
    if len(others):
        remarks.append(_other_modes_remark(len(others), settings.method))
    diagnostics = Diagnostics(
        rhat=rhat, ess=ess, residual_rms=rms, expected_residual=expected, remarks=tuple(remarks), **found.facts
    )
    seconds = {**found.seconds, "checking": time.perf_counter() - begin}
    return Solution(
        problem,
        found.name,
        latents,
        diagnostics,
        seconds,
        settings.seed,
        other_modes=others,
        coordinates=found.coordinates,
    )


def _other_modes_remark(count: int, method: Method) -> str:
    advice = {
        "map": "Solve again with start=solution.other_modes[0], compare the log joint densities, and show both.",
        "svi": "A guide of one hump cannot hold them: take method='nuts', whose R-hat compares chains in both.",
    }.get(method, "Start a chain in each, with more of them: num_chains=8, or start=... with a place for each chain.")
    return (
        f"The posterior has {count} mode{'s' * (count > 1)} that no draw is near (solution.other_modes): what is "
        f"reported is a part of it. {advice}"
    )


@torch.no_grad()
def _summaries(problem: InverseProblem, latents: Tensor) -> dict[str, Tensor]:
    """Scalars by name, ``(chains, draws)``: what R-hat compares."""
    values: dict[str, list[Tensor]] = {}
    for batch in latents.flatten(0, 1).split(problem.batch(16, gradients=False)):
        hr = problem.decode(batch.to(problem.lr))
        for name, value in {"residual": problem.residual_rms(hr), **image_summaries(hr)}.items():
            values.setdefault(name, []).append(value.cpu())
    summaries = {name: torch.cat(parts).reshape(latents.shape[:2]) for name, parts in values.items()}
    summaries["latent norm"] = latents.double().square().sum(-1)
    return summaries


def _chain_facts(
    found: Found, summaries: dict[str, Tensor], *, arrived: bool
) -> tuple[dict[str, float], dict[str, float], list[str]]:
    if found.starts is None:
        return {}, {}, []
    rhat, ess = chain_statistics(summaries)
    latents = found.latents
    remarks = chain_remarks(
        rhat,
        ess,
        draws=latents[..., 0].numel(),
        chains=len(latents),
        divergences=found.facts["divergences"],
        moved=float((latents[:, 1:] != latents[:, :-1]).any(-1).double().mean(-1).min()),
        settled=arrived and chains_settled(summaries, rhat),
    )
    return rhat, ess, remarks + start_remarks(found.starts, latents, one_place=found.one_place)
