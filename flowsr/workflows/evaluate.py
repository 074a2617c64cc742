"""Files of images in, figures out, measured by one process or several: what ``flowsr evaluate`` does."""

from collections.abc import Callable, Sequence
from pathlib import Path

from flowsr._support.names import printable
from flowsr.evaluation.columns import EvaluationPlan, ResolvedPlan
from flowsr.evaluation.many_images import Evaluation
from flowsr.evaluation.one_image import measure_pair
from flowsr.images import pair_by_name
from flowsr.models import Capability, ImageModel
from flowsr.results import Figure
from flowsr.workflows.pairs import read_pair
from flowsr.workflows.processes import Processes


def evaluate_files(
    flow: ImageModel,
    files: Sequence[Path],
    *,
    plan: EvaluationPlan | None = None,
    lr: Sequence[Path] | None = None,
    title: str = "",
    processes: Processes | None = None,
    on_image: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measure a model on files of HR images, alone or paired with LR images.

    Of a density of images alone (Glow, RealNVP) the bits per dimension and the time are measured.

    Under torchrun every process calls this with the same files, measures its share of them, and gets the whole result.

    Cost: one or two encoding passes per image, and one decoding pass per draw; files are read twice, all of them first.

    Args:
        flow: the model; put into evaluation mode.
        files: HR images, of different names.
        plan: what is measured.
        lr: LR images with the same names; by default LR is bicubic, rounded to 8 bits.
        title: heading of the result.
        processes: which of several processes this is; by default what torchrun's environment says.
        on_image: called with the name of each image measured here.

    Raises:
        ValueError: if the plan does not fit the model, LR images are given to one that makes or needs none, or names do
            not match.
        ImageError: for a file that cannot be used.
    """
    processes = processes or Processes.from_environment()
    resolved = (plan or EvaluationPlan()).resolve(flow, given_lr=lr is not None)
    if lr is not None and Capability.CONDITION not in flow.capabilities:
        raise ValueError(
            f"expected no LR images for {type(flow).__name__}, a density of images alone; got some: leave them out"
        )
    if lr is not None and Capability.DOWNSCALE in flow.capabilities:
        raise ValueError("expected no LR images for a rescaling model, which is measured on those it makes; got some")
    pairs = {} if lr is None else pair_by_name(files, lr, kind="LR")
    flow.eval()

    def check(path: Path) -> None:
        read_pair(flow, path, pairs.get(path), multiple=resolved.multiple)

    def measure(path: Path) -> dict[str, Figure]:
        row = _measure(flow, path, pairs.get(path), resolved)
        if on_image is not None:
            on_image(printable(path.name))
        return row

    with processes.joined():
        processes.each(files, check)  # all before the first is measured, as a damaged file shall show now
        found = processes.each(files, measure)
    rows = {printable(path.name): row for path, row in zip(files, found, strict=True)}
    many = f"{len(files)} image{'s' if len(files) != 1 else ''}"
    heading = f"{title or 'Model'} on {many}, cropped from the top left to multiples of {resolved.multiple}"
    return Evaluation(heading, resolved, rows)


def _measure(flow: ImageModel, path: Path, lr_path: Path | None, plan: ResolvedPlan) -> dict[str, Figure]:
    hr, lr = read_pair(flow, path, lr_path, multiple=plan.multiple)
    try:
        return measure_pair(flow, hr, lr, plan=plan)
    except ValueError as error:
        raise ValueError(f"{printable(path)}: {error}") from error
