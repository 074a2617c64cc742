"""Chains of an inverse problem: one run for each sampler, Pyro's NUTS or a batch of ours."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from flowsr.posterior.inverse_problem import SITE, InverseProblem
from flowsr.posterior.kernels import HMC, ChainKernel, CrankNicolson, Langevin
from flowsr.posterior.samplers import EnoughDraws, check_starts, sample_chains
from flowsr.posterior.solver_settings import Found, SolverSettings
from flowsr.posterior.starts import Start, make_start


def run_batch(problem: InverseProblem, settings: SolverSettings) -> Found:
    """Draws of the posterior by HMC, MALA or pCN, all chains at once, or as many as fit into memory."""
    start, kernel = make_start(problem, settings), make_kernel(settings)

    def advance() -> None:
        for _ in start.places:
            settings.advance()

    run = sample_chains(
        problem.latent_log_likelihood,
        start.places,
        kernel,
        num_samples=settings.num_samples,
        num_warmup=settings.num_warmup,
        seed=settings.seed,
        coordinates=start.coordinates,
        refit=start.refit,
        batch=problem.batch(len(start.places), gradients=kernel.has_slope),
        on_draw=advance,
    )
    facts = {"acceptance": run.acceptance, "divergences": run.divergences}
    return _found(settings, run.draws, run.seconds, facts, start)


def make_kernel(settings: SolverSettings) -> ChainKernel:
    """The kernel of a method that runs its chains as a batch."""
    accept, steps = settings.target_accept, settings.num_steps
    if settings.method == "hmc":
        return HMC(trajectory=settings.trajectory, target_accept=accept)
    if settings.method == "langevin":
        return Langevin(target_accept=accept, num_steps=steps or 10)
    return CrankNicolson(target_accept=accept, num_steps=steps or 20)


def run_nuts(problem: InverseProblem, settings: SolverSettings) -> Found:
    """Draws of the posterior by Pyro's NUTS, whose trajectories differ in length: one chain after the other."""
    from pyro.infer import MCMC, NUTS

    start = make_start(problem, settings)
    check_starts(problem.latent_log_likelihood, start.places, batch=1)
    seconds = {"warmup": 0.0, "sampling": 0.0}
    chains, acceptance, divergences, wanted = [], [], 0, settings.num_samples
    for place in start.places:
        clock, drawn, found = [time.perf_counter()], list[Tensor](), dict[str, Any]()

        def tick(
            kernel: Any,
            params: Any,
            stage: str,
            _number: int,
            clock: list[float] = clock,
            drawn: list[Tensor] = drawn,
            found: dict[str, Any] = found,
        ) -> None:
            now, warming = time.perf_counter(), stage.startswith("Warmup")
            seconds["warmup" if warming else "sampling"] += now - clock[0]
            clock[0] = now
            if not warming:
                drawn.append(params[SITE].detach().cpu().clone())
                found.update(kernel.diagnostics())
            settings.advance()

        # Pyro's own parallel chains start processes, to which a flow would have to be pickled.
        accept = settings.target_accept or 0.8
        mcmc = MCMC(
            NUTS(problem, target_accept_prob=accept, max_tree_depth=settings.max_tree_depth),
            num_samples=wanted,
            warmup_steps=settings.num_warmup,
            initial_params={SITE: place.clone()},
            hook_fn=tick,
            disable_progbar=True,
        )
        try:
            mcmc.run()
        except EnoughDraws:
            if not drawn:
                raise
        wanted = len(drawn)
        chains.append(torch.stack(drawn))
        acceptance.append(float(found["acceptance rate"]))
        divergences += len(found["divergences"])
    facts = {"acceptance": tuple(acceptance), "divergences": divergences}
    # A later chain may have been ended sooner than an earlier one.
    draws = torch.stack([chain[:wanted] for chain in chains])
    return _found(settings, draws, seconds, facts, start)


def _found(
    settings: SolverSettings, draws: Tensor, seconds: dict[str, float], facts: dict[str, Any], start: Start
) -> Found:
    return Found(settings.method, draws, seconds, facts, starts=start.places.cpu(), one_place=start.one_place)
