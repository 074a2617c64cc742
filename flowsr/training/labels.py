"""How the numbers of a run are called where people read them: on the screen, in figures, in tables."""

_NAMES = {
    "bits_per_dim": ("bits/dim", ""),
    "encoded_lr_psnr": ("encoded LR-PSNR", "dB"),
    "psnr": ("PSNR τ = 0", "dB"),
    "psnr_mean": ("PSNR τ = 0", "dB"),
    "psnr_draw": ("PSNR of a draw", "dB"),
    "psnr_y_mean": ("PSNR-Y τ = 0", "dB"),
    "psnr_y_draw": ("PSNR-Y of a draw", "dB"),
    "images_per_second": ("images/s", ""),
}
_SUFFIXES = {"_median": "median", "_worst": "worst image"}


def label_of(key: str) -> str:
    """The label of a column of the logs, with its unit.

    Example:
        >>> label_of("psnr_mean"), label_of("bits_per_dim_worst"), label_of("psnr_draw_median")
        ('PSNR τ = 0, dB', 'bits/dim, worst image', 'PSNR of a draw, dB, median')
    """
    for suffix, word in _SUFFIXES.items():
        if key.endswith(suffix):
            return f"{label_of(key.removesuffix(suffix))}, {word}"
    name, unit = _NAMES.get(key, (key, ""))
    return f"{name}, {unit}" if unit else name


def in_words(numbers: dict[str, float]) -> str:
    """Numbers of the logs in a line.

    Example:
        >>> in_words({"bits_per_dim": 3.4567, "psnr_mean": 27.25})
        'bits/dim: 3.457, PSNR τ = 0: 27.25 dB'
    """
    parts = []
    for key, value in numbers.items():
        name, unit = _NAMES.get(key, (key, ""))
        parts.append(f"{name}: {value:.4g} {unit}".rstrip())
    return ", ".join(parts)
