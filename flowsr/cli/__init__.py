"""The command ``flowsr``: thin. It parses, calls the library, prints; heavy imports wait inside the commands."""

__all__ = ["main"]


def main() -> None:
    """Entry point of the command ``flowsr``; leaves with 0, 2 for a user's mistake, 130 for Ctrl-C."""
    from flowsr._support.free_memory import keep_freed_memory
    from flowsr.cli.app import app
    from flowsr.cli.console import open_streams

    open_streams()
    keep_freed_memory()
    app(prog_name="flowsr")
