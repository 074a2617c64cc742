"""Whether draws can be believed: convergence and effective number, on summaries of the images, and remarks in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowsr.posterior.noise import Noise

RHAT_LIMIT = 1.05
"""Largest R-hat of chains that count as mixed."""

ESS_LIMIT = 100.0
"""Smallest effective number of draws whose quantiles mean something."""

_APART = 1.2  # R-hat of chains that are in different places, not only slow

_SLOW = (
    "raise num_warmup and num_samples, or take method='hmc'; start='laplace', which needs gradients, shortens the "
    "warm-up and fits steps to what the data say."
)
_SETTLED = (
    "each chain has settled in a place of its own, which more draws seldom change. Where the data say little, "
    "method='pcn' with target_accept=0.05 and num_steps=200 steps from one to the other; if it does not, report the "
    "chains one by one."
)

_SIMULATIONS, _EXACT = 20_000, 200  # simulated observations, and of how many values they still make their quantiles


@dataclass(frozen=True)
class Diagnostics:
    """How a solver fared.

    Attributes:
        rhat: rank-normalized split R-hat by summary, 1 for chains that agree; empty for methods without chains.
        ess: bulk effective number of draws by summary, over all chains.
        acceptance: mean acceptance probability of each chain; empty for methods without chains.
        divergences: transitions of HMC and NUTS that diverged after the warm-up.
        objective: the ELBO (SVI) or log joint density (MAP) in nats at each step; empty for chains.
        pareto_k: k-hat of the importance weights of SVI's guide, see :func:`flowsr.posterior.pareto_k`; NaN for others.
        gradient_norm: of the log joint density at the mode (MAP), in nats per standard deviation of the prior; NaN for
            others.
        residual_rms: root mean square of the standardized residual of each draw, averaged; about 1 if noise is all
            that is left.
        expected_residual: the interval that contains the residual of a true image with probability 0.999.
        remarks: what is wrong, and what to do; empty if nothing is.
    """

    rhat: Mapping[str, float] = field(default_factory=dict)
    ess: Mapping[str, float] = field(default_factory=dict)
    acceptance: tuple[float, ...] = ()
    divergences: int = 0
    objective: Tensor = field(default_factory=lambda: torch.zeros(0, device="cpu"))
    pareto_k: float = math.nan
    gradient_norm: float = math.nan
    residual_rms: float = math.nan
    expected_residual: tuple[float, float] = (math.nan, math.nan)
    remarks: tuple[str, ...] = ()

    @property
    def worst_rhat(self) -> float:
        """The largest R-hat; NaN without chains."""
        return max(self.rhat.values(), default=math.nan)

    @property
    def least_ess(self) -> float:
        """The smallest effective number of draws; NaN without chains."""
        return min(self.ess.values(), default=math.nan)


def chain_statistics(summaries: Mapping[str, Tensor]) -> tuple[dict[str, float], dict[str, float]]:
    """Rank-normalized R-hat and bulk effective number of draws of scalar summaries ``(chains, draws)``.

    Chains are cut in halves and values replaced by normal scores of their ranks, so that heavy tails do not hide what
    is wrong; R-hat is the larger one of location and, by distances from the median, of scale. These are the numbers of
    ArviZ, which is not needed for them. Summaries that are the same for all draws up to rounding are left out: the LR
    image fixes them. If all are, the chains have not moved.

    Cost: sorting, and a Fourier transform per chain.

    Args:
        summaries: at least four draws per chain each.

    Raises:
        ValueError: for fewer draws.

    References:
        Vehtari, Gelman, Simpson, Carpenter and Bürkner, Rank-normalization, folding, and localization: an improved
        R-hat (Bayesian Analysis 2021), section 4; Geyer, Practical Markov Chain Monte Carlo (Statistical Science 1992).

    Example:
        >>> rhat, ess = chain_statistics({"noise": torch.randn(4, 500)})
        >>> rhat["noise"] < 1.02, ess["noise"] > 1000
        (True, True)
    """
    from pyro.ops.stats import gelman_rubin

    rhat, ess = {}, {}
    for name, values in summaries.items():
        if values.dim() != 2 or values.shape[1] < 4:
            raise ValueError(
                f"expected at least four draws per chain, (chains, draws); got shape {tuple(values.shape)} for {name}: "
                "raise num_samples"
            )
        values = values.double().cpu()
        if float(values.max() - values.min()) <= 1e-5 * float(values.abs().max()):
            continue
        if bool((values == values[:, :1]).all()):
            # Every chain stands still, at a place of its own.
            rhat[name], ess[name] = math.inf, 1.0
            continue
        half = values.shape[1] // 2
        halves = torch.cat([values[:, :half], values[:, -half:]])
        scores = _normal_scores(halves)
        scales = _normal_scores((halves - halves.quantile(0.5)).abs())
        rhat[name] = max(float(gelman_rubin(scores)), float(gelman_rubin(scales)))
        ess[name] = _effective(scores)
    if summaries and not rhat:
        return dict.fromkeys(summaries, math.inf), dict.fromkeys(summaries, 1.0)
    return rhat, ess


def _effective(chains: Tensor) -> float:
    """Effective number of draws of chains ``(chains, draws)``: Geyer's initial monotone sequence of autocorrelations.

    Sums of neighbouring autocorrelations of a reversible chain are positive and fall; where the estimate's no longer
    do, it is noise. Antithetic chains, whose odd autocorrelations are negative, count for more than their draws.
    """
    count, draws = chains.shape
    off = chains - chains.mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(off, n=2 * draws).abs().square()
    covariance = torch.fft.irfft(spectrum, n=2 * draws)[:, :draws].mean(0) / draws
    within = float(covariance[0]) * draws / (draws - 1)
    total = float(covariance[0]) + (float(chains.mean(-1).var()) if count > 1 else 0.0)
    correlation = 1 - (within - covariance) / total
    correlation[0] = 1.0
    pairs = correlation[: draws - draws % 2].unflatten(0, (-1, 2)).sum(-1)[: max(0, (draws - 3) // 2) + 1]
    # The last pair is cut in half, whether it is noise or there are no more.
    last = int((pairs <= 0).nonzero()[0]) if bool((pairs <= 0).any()) else len(pairs) - 1
    kept = pairs[:last].cummin(0).values if last else pairs[:0]
    time = -1 + 2 * float(kept.sum()) + max(0.0, float(correlation[2 * last]))
    number = float(chains.numel())
    return number / max(time, 1 / math.log10(number))


def _normal_scores(values: Tensor) -> Tensor:
    """Normal quantiles of the ranks of all values, ties sharing their average rank."""
    from scipy import stats

    ranks = stats.rankdata(values.numpy(), method="average").reshape(values.shape)
    return torch.from_numpy(stats.norm.ppf((ranks - 0.375) / (values.numel() + 0.25)))


def chain_remarks(
    rhat: Mapping[str, float],
    ess: Mapping[str, float],
    *,
    draws: int,
    chains: int = 4,
    divergences: int = 0,
    moved: float = 1.0,
    settled: bool = False,
) -> list[str]:
    """What is wrong with chains, and what to do about it.

    Args:
        rhat: by summary, see :func:`chain_statistics`.
        ess: effective numbers, likewise.
        draws: of all chains.
        chains: how many there are.
        divergences: transitions that diverged.
        moved: share of the draws that are not the one before, of the chain where it is least.
        settled: whether each chain agrees with itself, though not with the others.

    Example:
        >>> chain_remarks({"patch 1": 1.4}, {"patch 1": 12.0}, draws=400)[0][:29]
        'Chains have not mixed: R-hat '
    """
    remarks = []
    bad = {name: value for name, value in rhat.items() if not value < RHAT_LIMIT}
    if bad:
        name = max(bad, key=lambda key: bad[key])
        advice = _SETTLED if settled else _SLOW
        remarks.append(
            f"Chains have not mixed: R-hat {bad[name]:.2f} of {name}, expected below {RHAT_LIMIT} ({len(bad)} of "
            f"{len(rhat)} summaries). Do not use these draws as the posterior: {advice}"
        )
    if chains == 1:
        remarks.append("One chain cannot show that it missed a part of the posterior: take num_chains=4.")
    if ess and min(ess.values()) < ESS_LIMIT:
        name = min(ess, key=lambda key: ess[key])
        remarks.append(
            f"Few effective draws: {ess[name]:.0f} of {draws} for {name}, expected {ESS_LIMIT:g}: means are good to "
            f"{1 / math.sqrt(ess[name]):.0%} of a standard deviation. Raise num_samples, or num_steps of pcn and "
            "langevin; or take start='laplace'."
        )
    if divergences:
        remarks.append(
            f"{divergences} of {draws} transitions diverged, where the posterior is too steep for the step: raise "
            "target_accept towards 0.95, or lr_log_scale if it is finite and below -4.6."
        )
    if moved < 0.05:
        remarks.append(
            f"A chain hardly moved: {moved:.1%} of its draws are not the one before. Raise num_warmup so that the step "
            "can adapt, or num_steps of pcn and langevin, or take method='nuts'."
        )
    return remarks


def chains_settled(summaries: Mapping[str, Tensor], rhat: Mapping[str, float]) -> bool:
    """Whether chains agree with themselves in the summary in which they differ most from each other.

    Args:
        summaries: as of :func:`chain_statistics`.
        rhat: found there.
    """
    worst = max(rhat, key=lambda name: rhat[name])
    alone = [chain_statistics({worst: chain[None]})[0].get(worst, 1.0) for chain in summaries[worst]]
    return len(alone) > 1 and rhat[worst] > _APART and max(alone) < 0.5 * (1 + rhat[worst])


def start_remarks(starts: Tensor, latents: Tensor, *, one_place: bool) -> list[str]:
    """What chains cannot show that did not start wider apart than the posterior that they found.

    Under starts that scatter as the draws do, the sum of their squared distances from their mean, in variances of the
    draws, has about a chi-squared distribution, of as many degrees of freedom as correlations leave. Starts that are
    narrower than all but one in a thousand of such, or that were moved a little from one place, are remarked.

    Args:
        starts: whitened vectors ``(chains, dims)``.
        latents: the draws ``(chains, draws, dims)``.
        one_place: whether they are known to be one place.

    References:
        Gelman and Rubin, Inference from iterative simulation using multiple sequences (Statistical Science 1992),
        section 2.1; Satterthwaite (Biometrics 1946) for the degrees of freedom.

    Example:
        >>> draws = torch.randn(4, 100, 10, generator=torch.Generator().manual_seed(0))
        >>> start_remarks(draws[:, 0], draws, one_place=False)
        []
        >>> start_remarks(0.1 * draws[:, 0], draws, one_place=False)[0][:44]
        'Chains started closer together than the draw'
    """
    if len(starts) == 1:
        return []
    narrow = one_place or _narrower(starts.double(), latents.flatten(0, 1).double())
    if not narrow:
        return []
    return [
        "Chains started closer together than the draws lie: that they agree does not show that they found all of the "
        "posterior. Take start='draw', start='mode' or start='laplace', or give a place of its own to each chain, "
        "(num_chains, dims)."
    ]


def _narrower(starts: Tensor, draws: Tensor) -> bool:
    from scipy import stats

    off = draws - draws.mean(0)
    std = off.square().mean(0).sqrt()
    if not bool((std > 0).all()):
        return False
    scaled = (starts - starts.mean(0)) / std
    rows = off[torch.linspace(0, len(off) - 1, min(1000, len(off)), device="cpu").long()] / std
    # The trace of the squared correlations, from the smaller of the two products.
    correlations = (rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows).square().sum() / len(rows) ** 2
    shrink = float(rows.shape[1] / correlations)
    expected = (len(starts) - 1) * rows.shape[1]
    return bool(stats.chi2.cdf(float(scaled.square().sum()) * shrink, expected * shrink) < 1e-3)


def residual_remarks(rms: float, expected: tuple[float, float], *, mode: bool = False) -> list[str]:
    """What a residual says that is not that of noise.

    Args:
        rms: root mean square of standardized residuals.
        expected: the interval that holds that of the true image.
        mode: of a mode, not of draws: it fits the noise too, so that its residual has no lower bound.

    Example:
        >>> residual_remarks(1.0, (0.9, 1.1))
        []
    """
    found = f"{rms:.2f} times the noise, expected {expected[0]:.2f} to {expected[1]:.2f}"
    if rms > expected[1] and mode:
        return [
            f"The mode does not explain the observation: its residual is {rms:.2f} times the noise, expected at most "
            f"{expected[1]:.2f}. Raise steps; if it stays, the noise or the operator is wrong, or the model unable to "
            "make this image: let lr_log_scale be finite."
        ]
    if rms > expected[1]:
        return [
            f"The draws do not explain the observation: their residual is {found}. The chain may be short, the noise "
            "or the operator wrong, or the model unable to make this image: compare with method='map', or let "
            "lr_log_scale be finite."
        ]
    if rms < expected[0] and not mode:
        return [f"The draws explain the observation too well: their residual is {found}: the noise given is too large."]
    return []


def residual_interval(
    noise: Noise, clean: Tensor, *, informative: Tensor | None = None, seed: int = 0
) -> tuple[float, float]:
    """Where the residual of the true image lies with probability 0.999, if operator, noise and model are right.

    A draw of the posterior and the true image have the same joint distribution with the observation. So noise is
    simulated on what the operator makes of draws, and the root mean square of its residuals collected: exact but for
    the number of simulations up to 200 observed values; beyond, where 20 000 simulations would be long, the mean square
    is taken to have a gamma distribution of mean 1 and of the variance that the simulated residuals have. For Gaussian
    noise that is exact too.

    Cost: 4 million simulated values.

    Args:
        noise: its model.
        clean: what the operator makes of some draws, ``(n, *observation)``.
        informative: which values of the observation tell of the image, boolean; all by default.
        seed: of the simulation.

    Example:
        >>> from flowsr.posterior import GaussianNoise
        >>> low, high = residual_interval(GaussianNoise(0.1), torch.zeros(1, 1000))
        >>> f"{low:.2f} to {high:.2f}"
        '0.93 to 1.07'
    """
    from scipy import stats

    told = torch.ones(clean.shape[1:], dtype=torch.bool, device="cpu") if informative is None else informative.cpu()
    clean = clean.detach().double().cpu()
    count = max(1, int(told.sum()))
    repeats = _SIMULATIONS if count <= _EXACT else max(64, _SIMULATIONS * _EXACT // count)
    generator = torch.Generator().manual_seed(seed)
    squares = torch.cat(
        [
            noise.residual(part, noise.simulate(part, generator=generator))[:, told].square()
            for part in clean[torch.arange(repeats, device="cpu") % len(clean)].split(max(1, 2**20 // clean[0].numel()))
        ]
    )
    tails = (0.0005, 0.9995)
    if count <= _EXACT:
        low, high = squares.mean(-1).quantile(torch.tensor(tails, dtype=torch.float64, device="cpu")).tolist()
    else:
        shape = count**2 / float((squares - 1).square().mean(0).sum())
        low, high = stats.gamma.ppf(tails, shape, scale=1 / shape)
    return math.sqrt(low), math.sqrt(high)
