"""The authors' own numbers: encodings, decodings and densities of HCFlow, SRFlow and IRN reproduce in float64."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import flowsr
from flowsr.likelihood import decompose, official_nll

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
SR = ("sr_x4", "sr_x8")
CASES = (*SR, "rescaling_x4")


def _golden(name):
    flow = flowsr.load(GOLDEN / f"{name}_official_state_dict.pth").double()
    with np.load(GOLDEN / f"{name}_expected.npz") as arrays:
        expected = {key: torch.from_numpy(value) for key, value in arrays.items()}
    return flow, expected


@pytest.fixture(params=CASES)
def golden(request):
    return request.param, *_golden(request.param)


def _close(got, expected, tolerance=1e-8):
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < tolerance


def test_encode(golden):
    _, flow, expected = golden
    latents = flow.encode(expected["hr"])
    _close(latents.lr, expected["lr_raw"])
    assert len(latents.z) == flow.config.levels
    for i, z in enumerate(latents.z):
        _close(z, expected[f"z_deep{i}"])
    _close(flow.decode(latents), expected["hr"], 1e-9)


def test_decode(golden):
    _, flow, expected = golden
    z = [0.8 * expected[f"eps_deep{i}"] for i in range(flow.config.levels)]
    _close(flow.decode(expected["lr"], z), expected["x_from_lr_tau0.8"])
    _close(flow.decode(expected["lr"]), expected["x_from_lr_tau0"])


def test_likelihood(golden):
    case, flow, expected = golden
    terms = decompose(flow, expected["hr"], expected["lr"])
    assert torch.allclose(terms.total, flow.condition(expected["lr"]).log_prob(expected["hr"]), rtol=1e-12)
    if case not in SR:
        return
    for i in range(flow.config.levels):
        _close(terms.of("latent")[i] + terms.of("head")[i], expected[f"logp_deep{i}"])
    rest = [term.value for term in terms.terms if term.kind != "lr"]
    _close(torch.stack(rest).sum(0), expected["log_det_plus_log_pz"])
    nll = official_nll(flow, expected["hr"], expected["lr"])
    _close(nll.mean(), expected["official_nll_no_noise"])


def test_conversion_of_the_official_number(golden):
    """With an LR image that rounding does not change, bits/dim = nll/3 + (2/3)·log2 q, as documented."""
    _, flow, expected = golden
    hr = expected["hr"]
    lr = flow.encode(hr).lr
    # The Gaussian's centre is placed so that the rounded and the raw residual agree.
    rounded = (lr.clamp(0, 1) * 255).round() / 255
    terms = decompose(flow, hr, lr.clamp(0, 1))
    difference = terms.of("lr")[0] - _lr_term(rounded - lr.clamp(0, 1))
    q = 64
    bits_per_dim = -(terms.total - difference - terms.dims * np.log(q)) / (terms.dims * np.log(2))
    _close(bits_per_dim, official_nll(flow, hr, lr.clamp(0, 1), bins=q) / 3 + 2 / 3 * np.log2(q))


def _lr_term(residual):
    return torch.distributions.Normal(0.0, np.exp(-6.0)).log_prob(residual).sum((-3, -2, -1))


def test_irn():
    flow, expected = _golden("irn_x4")
    assert isinstance(flow, flowsr.IRN)
    latents = flow.encode(expected["hr"])
    _close(latents.lr, expected["lr_raw"])
    _close(latents.z[0], expected["z"])
    # The authors' code divides the couplings' sums by the batch: the number recorded is the mean over the batch.
    _close(latents.ladj.mean(), expected["log_det_sum_over_batch"])
    _close(flow.decode(latents), expected["hr"], 1e-9)
    lr = flow.downscale(expected["hr"])
    assert torch.equal(lr, expected["lr_quantized"])
    _close(flow.decode(lr, [expected["z_draw"]]), expected["x_from_lr_and_z_draw"])
    _close(flow.enlarge(lr, temperature=0.0), expected["x_from_lr_tau0"])


def test_srflow():
    flow, expected = _golden("srflow_x4")
    assert isinstance(flow, flowsr.SRFlow)
    hr, lr = expected["hr"], expected["lr"]
    latents = flow.encode(hr, lr)
    # The authors list what leaves first first: fine to coarse.
    for z, name in zip(latents.z, ("latent1", "latent0"), strict=True):
        _close(z, expected[name])
    _close(flow.decode(latents), hr, 1e-9)
    _close(flow.decode(lr, [expected["draw1"], expected["draw0"]]), expected["x_from_draw"])
    log_prob = flow.condition(lr).log_prob(hr)
    _close(-log_prob / (math.log(2) * hr.shape[-2:].numel()), expected["nll_bits_per_pixel_no_noise"])
    split = torch.distributions.Normal(0.0, 1.0).log_prob(latents.z[1]).sum((-3, -2, -1))
    _close(latents.ladj + split, expected["log_det_plus_split_log_prob"])
