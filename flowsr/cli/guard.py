"""What happens when something goes wrong, in one place: a sentence for mistakes, a traceback for bugs."""

from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup

from flowsr.errors import FlowsrError

EXAMPLE = "Such as: "
"""How the last line of a command's help starts."""

INTERRUPTED = 130
MISTAKE = 2


class GuardedGroup(TyperGroup):
    """A group of commands that turns users' mistakes into one sentence on stderr and exit code 2, Ctrl-C into 130.

    The library raises ValueError, OSError and its own FlowsrError for what a user can mend; all else is a bug and
    keeps its traceback. ``flowsr --traceback COMMAND`` shows the traceback of mistakes too.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command inside the guard."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("\nInterrupted. Files already written are whole; nothing half-written was left.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise  # `flowsr info … | head`: typer leaves quietly
        except typer.BadParameter as error:
            explain(error)
            raise
        except (ValueError, OSError, FlowsrError) as error:
            if ctx.params.get("traceback"):
                raise
            typer.echo(f"Error: {sentence(error)}", err=True)
            raise typer.Exit(MISTAKE) from None


def explain(error: typer.BadParameter) -> None:
    """Show the whole form of a command that lacks an argument, and drop what pydantic says of its own."""
    error.message = error.message.removeprefix("Value error, ")
    command = error.ctx.command if error.ctx is not None else None
    if isinstance(error.param, TyperArgument) and error.param.required and command is not None and not error.message:
        form = " ".join(_metavar(param) for param in command.params if isinstance(param, TyperArgument))
        example = str(command.epilog).removeprefix(EXAMPLE)
        error.message = f"Expected {form}, such as: {example}"


def _metavar(argument: TyperArgument) -> str:
    return f"{argument.metavar}{'...' if argument.nargs == -1 else ''}"


def sentence(error: Exception) -> str:
    """The message of an error on one line; the system's errors without their number.

    Example:
        >>> sentence(FileNotFoundError(2, "No such file or directory", "cat.png"))
        'cat.png: no such file or directory'
        >>> sentence(ValueError("expected 3 channels;\\n  got 4"))
        'expected 3 channels; got 4'
    """
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return where + error.strerror[0].lower() + error.strerror[1:]
    return " ".join(str(error).split()) or type(error).__name__
