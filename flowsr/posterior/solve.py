"""Solvers of inverse problems behind one call: Pyro's samplers and variational guides on the program of the problem."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, cast, get_args

import pyro
import torch
from torch import Tensor

from flowsr.posterior.diagnostics import (
    Diagnostics,
    chain_remarks,
    chain_statistics,
    residual_interval,
    residual_remarks,
)
from flowsr.posterior.inverse_problem import SITE, InverseProblem
from flowsr.posterior.samplers import CrankNicolson, Langevin
from flowsr.posterior.solution import Solution
from flowsr.statistics.scalar_summaries import image_summaries

Method = Literal["nuts", "hmc", "pcn", "langevin", "svi", "map"]
Guide = Literal["normal", "lowrank", "flow"]

_DEFAULT_STEPS = {"pcn": 20, "langevin": 10}
_MOST_LEAPFROG_STEPS = 1024
_FEW_STEPS = 10
_SCATTER = {
    "svi (normal)": "Independent latents scatter in directions that the observation fixes: guide='lowrank' or 'flow' "
    "follows their correlations.",
    "svi (lowrank)": "A guide of low rank scatters in directions that the observation fixes beyond its rank: raise "
    "rank and steps, or let method='hmc' start at its centre.",
}
"""What a residual above that of the noise also says of a guide."""


def solve(
    problem: InverseProblem,
    method: Method = "nuts",
    *,
    num_samples: int = 500,
    num_warmup: int = 300,
    num_chains: int = 4,
    start: Literal["draw", "mode"] | Tensor = "draw",
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
    hmc       Pyro's HMC, trajectories of one length   the posterior                      gradients
    langevin  MALA, :class:`Langevin`                  the posterior, slowly              gradients
    pcn       :class:`CrankNicolson`                   the posterior, slowly              nothing
    svi       Pyro's SVI with an automatic guide       the closest guide                  gradients
    map       SVI with a point                         none: one image                    gradients
    ========  =======================================  =================================  ============================

    SVI with the guide "normal" (AutoNormal) ignores correlations of latents and so understates variances; "lowrank"
    (AutoLowRankMultivariateNormal) has some of them, "flow" (AutoNormalizingFlow) is not Gaussian. The mode (MAP) in
    latent space is not the mode of ``p(hr)``, which depends on the coordinates.

    Cost: one decoding pass with its gradient per leapfrog step (``trajectory``/step size of them, or up to
    ``2**max_tree_depth``, per draw and chain); chains run one after the other. pCN takes ``num_steps`` passes without a
    gradient per draw, SVI and MAP one pass of ``num_particles`` images per step.

    Args:
        problem: the inverse problem.
        method: see above.
        num_samples: draws per chain after the warm-up, at least 4; draws of the guide for SVI.
        num_warmup: draws discarded while step size and mass matrix adapt.
        num_chains: chains, which start at different places; at least 2 to notice that one is stuck.
        start: "draw": each chain at a draw of the prior; "mode": at the MAP, moved by a tenth of a prior's draw; or a
            whitened vector ``(dims,)``, as of :meth:`InverseProblem.whiten`, for warm starts.
        seed: of all randomness; torch's global generator is left as it was.
        target_accept: acceptance probability to adapt the step to; 0.8 for nuts and hmc, 0.574 langevin, 0.3 pcn.
        trajectory: length of an HMC trajectory, in units of the prior's standard deviation; of at most 1024 steps.
        max_tree_depth: of NUTS, at least 1.
        num_steps: proposals per draw of pcn (20) and langevin (10), at least 1.
        guide: of SVI.
        rank: of the guide "lowrank"; by default Pyro's, the square root of the dimension.
        steps: optimization steps of SVI and MAP.
        learning_rate: of Adam, falling to a hundredth.
        num_particles: images per SVI step.
        on_step: called after each draw, or each optimization step, for a progress bar: ``num_chains·(num_warmup +
            num_samples)`` times, or ``steps``.

    Returns:
        Draws, diagnostics and timings. Chains that have not mixed are no error: see ``diagnostics.remarks``, or call
        :meth:`Solution.require_mixed`.

    Raises:
        ValueError: for an unknown method, numbers out of range, or an operator without gradients where they are needed.

    References:
        Hoffman and Gelman, The No-U-Turn Sampler (JMLR 2014); Kucukelbir et al., Automatic differentiation variational
        inference (JMLR 2017); Cotter et al. (Statistical Science 2013) for pCN.

    Example:
        >>> from flowsr.posterior import GaussianNoise, Identity, LinearGaussianFlow
        >>> flow, lr = LinearGaussianFlow(detail_std=(0.1,)), torch.full((1, 2, 2), 0.5)
        >>> problem = InverseProblem(flow, lr, Identity(), torch.rand(1, 4, 4), GaussianNoise(0.1))
        >>> solution = solve(problem, "hmc", num_samples=50, num_warmup=30, num_chains=2)
        >>> solution.latents.shape, solution.images().shape
        (torch.Size([2, 50, 12]), torch.Size([100, 1, 4, 4]))
    """
    if method not in get_args(Method):
        raise ValueError(f"expected method to be one of {', '.join(get_args(Method))}; got {method!r}")
    if guide not in get_args(Guide):
        raise ValueError(f"expected guide to be one of {', '.join(get_args(Guide))}; got {guide!r}")
    if num_samples < 4 or num_chains < 1 or num_warmup < 0 or steps < 1 or num_particles < 1:
        raise ValueError(
            "expected num_samples >= 4, num_chains, steps and num_particles >= 1, num_warmup >= 0; got "
            f"{num_samples}, {num_chains}, {steps}, {num_particles} and {num_warmup}"
        )
    if target_accept is not None and not 0 < target_accept < 1:
        raise ValueError(f"expected target_accept in (0, 1); got {target_accept}")
    if not 0 < trajectory < math.inf or not 0 < learning_rate < math.inf:
        raise ValueError(f"expected finite trajectory and learning_rate > 0; got {trajectory} and {learning_rate}")
    for name, value in (("max_tree_depth", max_tree_depth), ("num_steps", num_steps), ("rank", rank)):
        if value is not None and value < 1:
            raise ValueError(f"expected {name} >= 1; got {value}")
    if isinstance(start, Tensor) and start.shape != (problem.dims,):
        raise ValueError(f"expected start to be a whitened vector ({problem.dims},); got shape {tuple(start.shape)}")
    if isinstance(start, Tensor) and not bool(torch.isfinite(start).all()):
        raise ValueError("expected a finite start; got NaN or infinity in it: take start='draw'")
    if isinstance(start, str) and start not in ("draw", "mode"):
        raise ValueError(f"expected start to be draw, mode or a whitened vector; got {start!r}")
    if method != "pcn":
        problem.check_differentiable(method)
    advance = on_step or (lambda: None)
    optimization = _Optimization(steps=steps, learning_rate=learning_rate, num_particles=num_particles)
    with _isolated(problem, seed):
        if method in ("svi", "map"):
            begin = time.perf_counter()
            draws, objective = optimization.run(
                problem, guide=guide if method == "svi" else None, rank=rank, num_samples=num_samples, on_step=advance
            )
            seconds = {"optimizing": time.perf_counter() - begin}
            name = f"svi ({guide})" if method == "svi" else "map"
            return _judged(problem, name, draws[None], {"objective": objective}, seconds, seed)
        starts = _starts(problem, start, num_chains, optimization)
        _check_starts(problem, starts)
        kernel = _kernels(
            problem,
            target_accept=target_accept,
            trajectory=trajectory,
            max_tree_depth=max_tree_depth,
            num_steps=_DEFAULT_STEPS.get(method, 1) if num_steps is None else num_steps,
        )[method]
        draws, found, seconds = _run_chains(
            kernel, starts, num_samples=num_samples, num_warmup=num_warmup, advance=advance
        )
        return _judged(problem, method, draws, found, seconds, seed)


def _kernels(
    problem: InverseProblem, *, target_accept: float | None, trajectory: float, max_tree_depth: int, num_steps: int
) -> dict[str, Callable[[], Any]]:
    from pyro.infer import HMC, NUTS

    class BoundedHMC(HMC):
        @property
        def num_steps(self) -> int:
            # Where every proposal is rejected the step shrinks towards zero, and a trajectory would never end.
            return min(_MOST_LEAPFROG_STEPS, super().num_steps)

    return {
        "nuts": lambda: NUTS(problem, target_accept_prob=target_accept or 0.8, max_tree_depth=max_tree_depth),
        "hmc": lambda: BoundedHMC(
            problem,
            step_size=0.1,  # pyright: ignore[reportArgumentType]
            trajectory_length=trajectory,
            target_accept_prob=target_accept or 0.8,
        ),
        "langevin": lambda: Langevin(problem, target_accept=target_accept, num_steps=num_steps),
        "pcn": lambda: CrankNicolson(problem, target_accept=target_accept, num_steps=num_steps),
    }


def _run_chains(
    make_kernel: Callable[[], Any], starts: Tensor, *, num_samples: int, num_warmup: int, advance: Callable[[], None]
) -> tuple[Tensor, dict[str, Any], dict[str, float]]:
    from pyro.infer import MCMC

    seconds = {"warmup": 0.0, "sampling": 0.0}
    chains, acceptance, divergences = [], [], 0
    for start in starts:
        clock = [time.perf_counter()]

        def tick(_kernel: Any, _params: Any, stage: str, _number: int, clock: list[float] = clock) -> None:
            now = time.perf_counter()
            seconds["warmup" if stage.startswith("Warmup") else "sampling"] += now - clock[0]
            clock[0] = now
            advance()

        # One chain at a time: Pyro's own parallel chains start processes, to which a flow would have to be pickled.
        mcmc = MCMC(
            make_kernel(),
            num_samples=num_samples,
            warmup_steps=num_warmup,
            initial_params={SITE: start.clone()},
            hook_fn=tick,
            disable_progbar=True,
        )
        mcmc.run()
        chains.append(mcmc.get_samples()[SITE].cpu())
        found = mcmc.diagnostics()
        acceptance.append(float(found["acceptance rate"]["chain 0"]))
        divergences += len(found.get("divergences", {}).get("chain 0", []))
    return torch.stack(chains), {"acceptance": tuple(acceptance), "divergences": divergences}, seconds


def _starts(problem: InverseProblem, start: str | Tensor, num_chains: int, optimization: _Optimization) -> Tensor:
    noise = torch.randn(num_chains, problem.dims).to(problem.lr)
    if isinstance(start, Tensor):
        return start.to(problem.lr) + 0.1 * noise
    if start == "mode":
        mode, _ = optimization.run(problem, guide=None, rank=None, num_samples=1, on_step=lambda: None)
        return mode.to(problem.lr) + 0.1 * noise
    return noise


@torch.no_grad()
def _check_starts(problem: InverseProblem, starts: Tensor) -> None:
    for number, start in enumerate(starts, start=1):
        value = float(problem.log_likelihood(problem.decode(start)))
        if not math.isfinite(value):
            raise ValueError(
                f"expected a finite likelihood where chain {number} starts; got {value}: look for a division by zero "
                "or the logarithm of a negative value in the operator, or give another start"
            )


class _Optimization:
    """SVI with one of Pyro's automatic guides, or with a point."""

    def __init__(self, *, steps: int, learning_rate: float, num_particles: int) -> None:
        self.steps, self.learning_rate, self.num_particles = steps, learning_rate, num_particles

    def run(
        self,
        problem: InverseProblem,
        *,
        guide: str | None,
        rank: int | None,
        num_samples: int,
        on_step: Callable[[], None],
    ) -> tuple[Tensor, Tensor]:
        """Draws ``(num_samples, dims)``, one without a guide, and the objective at each step."""
        from pyro.infer import SVI, Trace_ELBO
        from pyro.optim import ClippedAdam

        made = _make_guide(problem, guide, rank)
        particles = self.num_particles if guide else 1
        loss = Trace_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=0)
        adam = ClippedAdam({"lr": self.learning_rate, "lrd": 0.01 ** (1 / self.steps), "clip_norm": 1e3})
        svi = SVI(problem, made, adam, loss)
        objective = []
        for step in range(1, self.steps + 1):
            try:
                value = -float(cast(float, svi.step()))
            except ValueError as error:
                # Pyro refuses the parameters of a guide that has run away.
                raise ValueError(_runaway(step)) from error
            if not math.isfinite(value):
                raise ValueError(_runaway(step))
            objective.append(value)
            on_step()
        with torch.no_grad(), pyro.poutine.block():
            draws = torch.stack([made()[SITE].detach().cpu() for _ in range(num_samples if guide else 1)])
        return draws, torch.tensor(objective)


def _runaway(step: int) -> str:
    return f"expected a finite objective; got another at step {step} of the optimization: lower learning_rate"


def _make_guide(problem: InverseProblem, name: str | None, rank: int | None) -> Any:
    from pyro.distributions.transforms import affine_autoregressive, iterated
    from pyro.infer import autoguide
    from pyro.infer.autoguide.initialization import init_to_value

    zeros = torch.zeros(problem.dims).to(problem.lr)
    where = init_to_value(values={SITE: zeros})
    if name is None:
        return autoguide.AutoDelta(problem, init_loc_fn=where)
    if name == "normal":
        return autoguide.AutoNormal(problem, init_loc_fn=where, init_scale=0.3)
    if name == "lowrank":
        return autoguide.AutoLowRankMultivariateNormal(problem, init_loc_fn=where, init_scale=0.3, rank=rank)
    return autoguide.AutoNormalizingFlow(problem, partial(iterated, 1, affine_autoregressive))


@torch.no_grad()
def _judged(
    problem: InverseProblem,
    method: str,
    latents: Tensor,
    found: dict[str, Any],
    seconds: dict[str, float],
    seed: int,
) -> Solution:
    begin = time.perf_counter()
    if not bool(torch.isfinite(latents).all()):
        raise ValueError(
            f"expected finite draws; got NaN or infinity from {method}: lower learning_rate, or raise target_accept"
        )
    chains, draws, _ = latents.shape
    values: dict[str, list[Tensor]] = {}
    some = problem.observe(problem.decode(latents.flatten(0, 1)[:: max(1, chains * draws // 16)].to(problem.lr)))
    for batch in latents.flatten(0, 1).split(16):
        hr = problem.decode(batch.to(problem.lr))
        parts = {"residual": problem.residual_rms(hr), **image_summaries(hr)}
        for name, value in parts.items():
            values.setdefault(name, []).append(value.cpu())
    summaries = {name: torch.cat(parts).reshape(chains, draws) for name, parts in values.items()}
    summaries["latent norm"] = latents.double().square().sum(-1)
    rms = float(summaries["residual"].double().square().mean().sqrt())
    expected = residual_interval(problem.noise, some, informative=problem.informative, seed=seed)
    rhat: dict[str, float] = {}
    ess: dict[str, float] = {}
    remarks = []
    if "acceptance" in found:
        rhat, ess = chain_statistics(summaries)
        remarks += chain_remarks(rhat, ess, found["acceptance"], found["divergences"], draws=chains * draws)
    else:
        remarks += _objective_remarks(found["objective"])
    if method != "map":
        # The mode fits the noise too: its residual is smaller than that of the true image.
        remarks += residual_remarks(rms, expected)
        if method in _SCATTER and rms > expected[1]:
            remarks.append(_SCATTER[method])
    diagnostics = Diagnostics(
        rhat=rhat, ess=ess, residual_rms=rms, expected_residual=expected, remarks=tuple(remarks), **found
    )
    seconds = {**seconds, "checking": time.perf_counter() - begin}
    return Solution(problem, method, latents, diagnostics, seconds, seed)


def _objective_remarks(objective: Tensor) -> list[str]:
    if len(objective) < _FEW_STEPS:
        return [f"An optimization of {len(objective)} steps says nothing about its end: raise steps."]
    tail = objective[-max(2, len(objective) // 5) :].double()
    early, late = tail.chunk(2)
    scatter = float((early.var() / len(early) + late.var() / len(late)).sqrt()) if len(late) > 1 else 0.0
    gain = float(late.mean() - early.mean())
    # One nat in all is too little to matter, whatever its error.
    if gain > max(1.0, 4 * scatter):
        return [
            f"The objective was still rising, by {gain:.1f} nats over the last tenth: raise steps or learning_rate."
        ]
    return []


@contextmanager
def _isolated(problem: InverseProblem, seed: int) -> Iterator[None]:
    """Own random state and parameter store; weights without gradients, which nobody asks for here."""
    parameters = [p for p in getattr(problem.flow, "parameters", list)() if p.requires_grad]
    devices = [problem.lr.device] if problem.lr.device.type == "cuda" else []
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        with (
            torch.random.fork_rng(devices=devices),
            pyro.get_param_store().scope(),
            torch.enable_grad(),
            warnings.catch_warnings(),
        ):
            # Of diverging trajectories, which are counted instead.
            warnings.filterwarnings("ignore", message="Encountered NaN|Encountered inf", category=UserWarning)
            torch.manual_seed(seed)
            yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
