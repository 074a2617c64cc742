"""The command line called from tests: its result, and what a refusal looks like."""

from typer.testing import CliRunner

from flowsr.cli.app import app


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def refused(result, *words):
    """Exit code 2 and one sentence on stderr, without a traceback; the sentence holds the words."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    said = " ".join(result.stderr.replace("│", " ").split())  # out of its box, if it is in one
    for word in words:
        assert word in said, result.stderr
    return True
