"""Two models measured on the same files, alike: what ``flowsr compare`` does, for use from Python too."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from flowsr.evaluation import Comparison, EvaluationPlan, compare_evaluations, require_comparable
from flowsr.models import ImageModel
from flowsr.workflows.evaluate import evaluate_files
from flowsr.workflows.processes import Processes


def compare_files(
    a: ImageModel,
    b: ImageModel,
    files: Sequence[Path],
    *,
    models: tuple[str, str] = ("A", "B"),
    plan: EvaluationPlan | None = None,
    lr: Sequence[Path] | None = None,
    processes: Processes | None = None,
    on_image: Callable[[str], None] | None = None,
) -> Comparison:
    """Measure two models on files of HR images, and pair their figures image by image.

    Both see the same crops, of sides that suit both, the same LR images and the same seeds.

    Cost: that of :func:`flowsr.workflows.evaluate.evaluate_files` for each model.

    Args:
        a: the first model; put into evaluation mode, as is the second.
        b: the second model.
        files: HR images, of different names.
        models: the names of the two.
        plan: what is measured; its multiple by default is the least that suits both models.
        lr: LR images with the same names; by default LR is bicubic, rounded to 8 bits.
        processes: which of several processes this is; by default what torchrun's environment says.
        on_image: called with the name of each image measured here, for each model.

    Raises:
        ValueError: for models whose figures cannot be compared, or a plan that does not fit one of them.
        ImageError: for a file that cannot be used.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import flowsr
        >>> from flowsr.images import write_image
        >>> path = Path(tempfile.mkdtemp()) / "noise.png"
        >>> write_image(path, torch.rand(3, 32, 32))
        >>> haar, rotation = (flowsr.HCFlow.from_preset("sr-x4-small", start=name) for name in ("haar", "rotation"))
        >>> found = compare_files(haar, rotation, [path], plan=EvaluationPlan(temperatures=(0.0,)))
        >>> found.figures[0].name, found.figures[0].record
        ('Bits per dimension', (0, 1, 0))
    """
    require_comparable(a, b)
    plan, processes = plan or EvaluationPlan(), processes or Processes.from_environment()
    multiple = math.lcm(*(plan.resolve(flow).multiple for flow in (a, b)))
    plan = replace(plan, multiple=multiple)
    with processes.joined():
        one, two = (
            evaluate_files(flow, files, plan=plan, lr=lr, processes=processes, on_image=on_image) for flow in (a, b)
        )
    many = f"{len(files)} image{'s' if len(files) != 1 else ''}"
    title = f"B against A on {many}, cropped from the top left to multiples of {multiple}"
    return compare_evaluations(one, two, models=models, title=title, seed=plan.seed)
