"""``python -m flowsr`` is the command ``flowsr``."""

from flowsr.cli import main

if __name__ == "__main__":
    main()
