"""How good a model is on whole images: bits/dim, LR fidelity and PSNR, per image, with their conventions fixed."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from statistics import mean, median

from torch import Tensor

from flowsr._support.temperatures import DRAW_TEMPERATURE
from flowsr.evaluation import EvaluationPlan, score_pair
from flowsr.evaluation.columns import key_of
from flowsr.models import Capability, ImageModel
from flowsr.results import Figure

Named = tuple[str, Tensor] | tuple[str, Tensor, Tensor | None]
"""An image's name, the HR image, and its LR image if that is not to be the bicubic one."""


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image, by the rules of :func:`flowsr.evaluation.score_pair`; None where there is no figure.

    Attributes:
        name: of the image.
        bits_per_dim: of the uniformly dequantized image (one draw of noise of width 1/256), LR term with the model's σ,
            e^-6 for HCFlow, included; D = C·H·W. A rescaling model, which is not trained to be a likelihood, has none.
        encoded_lr_psnr: the flow's own LR image against the LR image (bicubic, rounded to 8 bits, unless given), dB,
            RGB, no border. Super-resolution: clamp(encode(hr).lr), not rounded; rescaling: rounded to 8 bits.
            Models without an LR image in their latent have none.
        psnr_mean: super-resolution: decode(lr, z = 0); rescaling: of the flow's own LR rounded to 8 bits. RGB, border
            s, 8-bit, dB. A density of images alone has none, of this and the following.
        psnr_draw: the same with one draw at the temperature asked for.
        psnr_y_mean: as ``psnr_mean`` on the studio-range luma; gray images have none.
        psnr_y_draw: as ``psnr_draw`` on the studio-range luma.
    """

    name: str
    bits_per_dim: float | None
    encoded_lr_psnr: float | None
    psnr_mean: float | None
    psnr_draw: float | None
    psnr_y_mean: float | None
    psnr_y_draw: float | None


NUMBERS = tuple(field.name for field in fields(ImageScores) if field.name != "name")
"""Names of the scores."""


def score_image(
    flow: ImageModel,
    hr: Tensor,
    lr: Tensor | None = None,
    *,
    name: str = "",
    temperature: float = DRAW_TEMPERATURE,
    seed: int = 0,
    multiple: int | None = None,
) -> ImageScores:
    """Score one image, cropped from its top left corner to multiples of ``multiple``.

    Cost: two encoding and two decoding passes; one encoding pass for a density of images alone.

    Args:
        flow: the model, in evaluation mode.
        hr: 8-bit image in [0, 1], ``(C, H, W)``.
        lr: its LR image; by default the bicubic one, rounded to 8 bits.
        name: what to call it.
        temperature: τ of the draw.
        seed: of noise and draw; the same seed gives the same numbers, which are those of ``flowsr evaluate``.
        multiple: what both sides are cropped to; by default 16, or what the model needs.

    Raises:
        ImageError: if the image is smaller than ``multiple``, or the LR image is not 1/s of it.
        ValueError: if the model's images are not finite.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> score_image(flow, torch.rand(3, 40, 52)).encoded_lr_psnr > 20
        True
    """
    temperatures = tuple(dict.fromkeys((0.0, float(temperature))))
    conditional = Capability.CONDITION in flow.capabilities
    plan = EvaluationPlan(
        temperatures=temperatures if conditional else None, num_samples=1, multiple=multiple, seed=seed
    )
    scores = score_pair(flow, hr, lr, plan=plan, figures=("psnr", "psnr_y"))
    mean_of, draw_of = key_of(0.0), key_of(temperature)
    return ImageScores(
        name=name,
        bits_per_dim=_number(scores.get("bits_per_dim")),
        encoded_lr_psnr=_number(scores.get("encoded_lr_psnr")),
        psnr_mean=_number(scores.get(f"psnr_{mean_of}")),
        psnr_draw=_number(scores.get(f"psnr_{draw_of}")),
        psnr_y_mean=_number(scores.get(f"psnr_y_{mean_of}")),
        psnr_y_draw=_number(scores.get(f"psnr_y_{draw_of}")),
    )


def _number(figure: Figure | None) -> float | None:
    return None if figure is None else figure.number


def score_images(
    flow: ImageModel,
    images: Iterable[Named],
    *,
    temperature: float = DRAW_TEMPERATURE,
    seed: int = 0,
    multiple: int | None = None,
) -> list[ImageScores]:
    """Score named images one by one, in evaluation mode, as ``score_image`` does.

    Cost: two encoding and two decoding passes per image.

    Args:
        flow: the model; left in the mode it is in.
        images: names and HR images, or names, HR images and LR images.
        temperature: τ of the draw.
        seed: of noise and draw of every image.
        multiple: what both sides are cropped to; by default 16, or what the model needs.

    Raises:
        ImageError: for an image that is too small, or an LR image that is not 1/s of it.
        ValueError: if the model's images are not finite.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> [scores.name for scores in score_images(flow, [("noise", torch.rand(3, 32, 32))])]
        ['noise']
    """
    training = flow.training
    flow.eval()
    try:
        return [
            score_image(flow, hr, *lr, name=name, temperature=temperature, seed=seed, multiple=multiple)
            for name, hr, *lr in images
        ]
    finally:
        flow.train(training)


def summarize(scores: list[ImageScores]) -> dict[str, float]:
    """Means and medians over images; medians carry the suffix ``_median``, the worst bits/dim ``_worst``.

    What some image has no figure of is left out.

    Example:
        >>> scores = [ImageScores("a", 3.0, 40, 25, 23, 26, 24), ImageScores("b", 9.0, 40, 25, 23, 26, None)]
        >>> summary = summarize(scores)
        >>> summary["bits_per_dim"], summary["bits_per_dim_worst"], "psnr_y_draw" in summary
        (6.0, 9.0, False)
    """
    rows = [asdict(score) for score in scores]
    whole = {name: values for name in NUMBERS if None not in (values := [row[name] for row in rows])}
    summary = {name: mean(values) for name, values in whole.items()}
    summary |= {f"{name}_median": median(values) for name, values in whole.items()}
    return summary | ({"bits_per_dim_worst": max(whole["bits_per_dim"])} if "bits_per_dim" in whole else {})
