"""Write a page for each model that ships, of its card: the package's cards are the only source."""

from pathlib import Path

import flowsr

CARDS = Path(flowsr.__file__).parent / "weights"


def write_cards(folder: Path, pictures: Path) -> None:
    """Write NAME.md for every card, with its curve where there is a picture of it, and take away pages of cards gone.

    Args:
        folder: where the pages go; created if missing.
        pictures: where ``curve-NAME.png`` lies, two folders above the pages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.md"):
        stale.unlink()
    for card in sorted(CARDS.glob("*.md")):
        text = card.read_text(encoding="utf-8")
        if (pictures / f"curve-{card.stem}.png").exists():
            curve = f"../../{pictures.name}/curve-{card.stem}.png"
            text += f"\n## Curve of the training\n\n![losses and figures]({curve})\n"
        (folder / card.name).write_text(text, encoding="utf-8")
