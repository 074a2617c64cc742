"""Whom to cite: BibTeX for a model and for the parts that it is made of."""

from collections.abc import Iterator

from flowsr.models.glow import Glow
from flowsr.models.hcflow import HCFlow
from flowsr.models.image_model import ImageModel
from flowsr.models.irn import IRN
from flowsr.models.realnvp import RealNVP
from flowsr.models.srflow import SRFlow
from flowsr.nn import RRDB, BatchStatistics, WeightNormConv2d
from flowsr.transforms import (
    AdditiveMap,
    ConditionalAffine,
    Coupling,
    Haar,
    InvertibleConv1x1,
    InvertibleConv1x1PLU,
    Multiscale,
)

BIBTEX: dict[str, str] = {
    "hcflow": """@inproceedings{liang2021hierarchical,
  title     = {Hierarchical Conditional Flow: A Unified Framework for Image Super-Resolution and Image Rescaling},
  author    = {Liang, Jingyun and Lugmayr, Andreas and Zhang, Kai and Danelljan, Martin and Van Gool, Luc and
               Timofte, Radu},
  booktitle = {IEEE/CVF International Conference on Computer Vision (ICCV)},
  year      = {2021}
}""",
    "srflow": """@inproceedings{lugmayr2020srflow,
  title     = {{SRFlow}: Learning the Super-Resolution Space with Normalizing Flow},
  author    = {Lugmayr, Andreas and Danelljan, Martin and Van Gool, Luc and Timofte, Radu},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year      = {2020}
}""",
    "irn": """@inproceedings{xiao2020invertible,
  title     = {Invertible Image Rescaling},
  author    = {Xiao, Mingqing and Zheng, Shuxin and Liu, Chang and Wang, Yaolong and He, Di and Ke, Guolin and
               Bian, Jiang and Lin, Zhouchen and Liu, Tie-Yan},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year      = {2020}
}""",
    "glow": """@inproceedings{kingma2018glow,
  title     = {Glow: Generative Flow with Invertible 1x1 Convolutions},
  author    = {Kingma, Diederik P. and Dhariwal, Prafulla},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2018}
}""",
    "realnvp": """@inproceedings{dinh2017density,
  title     = {Density Estimation Using {Real NVP}},
  author    = {Dinh, Laurent and Sohl-Dickstein, Jascha and Bengio, Samy},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2017}
}""",
    "nice": """@inproceedings{dinh2015nice,
  title     = {{NICE}: Non-linear Independent Components Estimation},
  author    = {Dinh, Laurent and Krueger, David and Bengio, Yoshua},
  booktitle = {International Conference on Learning Representations (ICLR), Workshop Track},
  year      = {2015}
}""",
    "conditional": """@article{winkler2019learning,
  title   = {Learning Likelihoods with Conditional Normalizing Flows},
  author  = {Winkler, Christina and Worrall, Daniel and Hoogeboom, Emiel and Welling, Max},
  journal = {arXiv preprint arXiv:1912.00042},
  year    = {2019}
}""",
    "esrgan": """@inproceedings{wang2018esrgan,
  title     = {{ESRGAN}: Enhanced Super-Resolution Generative Adversarial Networks},
  author    = {Wang, Xintao and Yu, Ke and Wu, Shixiang and Gu, Jinjin and Liu, Yihao and Dong, Chao and Qiao, Yu and
               Loy, Chen Change},
  booktitle = {European Conference on Computer Vision Workshops (ECCVW)},
  year      = {2018}
}""",
    "weight-norm": """@inproceedings{salimans2016weight,
  title     = {Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks},
  author    = {Salimans, Tim and Kingma, Diederik P.},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2016}
}""",
    "batch-norm": """@inproceedings{ioffe2015batch,
  title     = {Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift},
  author    = {Ioffe, Sergey and Szegedy, Christian},
  booktitle = {International Conference on Machine Learning (ICML)},
  year      = {2015}
}""",
    "haar": """@article{ardizzone2019guided,
  title   = {Guided Image Generation with Conditional Invertible Neural Networks},
  author  = {Ardizzone, Lynton and L{\\"u}th, Carsten and Kruse, Jakob and Rother, Carsten and K{\\"o}the, Ullrich},
  journal = {arXiv preprint arXiv:1907.02392},
  year    = {2019}
}""",
}
"""Entries by the name of what they describe."""

_OF_CLASS: dict[type, str] = {
    HCFlow: "hcflow",
    SRFlow: "srflow",
    IRN: "irn",
    Glow: "glow",
    RealNVP: "realnvp",
    InvertibleConv1x1: "glow",
    InvertibleConv1x1PLU: "glow",
    ConditionalAffine: "conditional",
    Coupling: "realnvp",
    Multiscale: "realnvp",
    AdditiveMap: "nice",
    RRDB: "esrgan",
    Haar: "haar",
    WeightNormConv2d: "weight-norm",
    BatchStatistics: "batch-norm",
}
"""The entry of each class of model or part that comes from a paper."""


def bibtex(model: ImageModel) -> str:
    """BibTeX of a model and of the parts in it, the model's own paper first, each once.

    Example:
        >>> from flowsr.models import IRN
        >>> print(bibtex(IRN.from_preset("irn-x2-small")).splitlines()[0])
        @inproceedings{xiao2020invertible,
    """
    return "\n\n".join(dict.fromkeys(BIBTEX[name] for name in _entries(model)))


def cite(model: ImageModel) -> None:
    """Print the BibTeX of a model and of the parts in it, see :func:`bibtex`.

    Args:
        model: any model of ``flowsr.models.REGISTRY``.

    Example:
        >>> from flowsr.models import Glow
        >>> cite(Glow.from_preset("glow-small", levels=1, steps=1))
        @inproceedings{kingma2018glow,
        ...
    """
    print(bibtex(model))


def _entries(model: ImageModel) -> Iterator[str]:
    for module in model.modules():
        for cls in type(module).__mro__:
            if cls in _OF_CLASS:
                yield _OF_CLASS[cls]
