"""What happens when something goes wrong, in one place: a sentence for mistakes, a traceback for bugs."""

import os
import re
import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperOption

from flowsr._support.free_memory import memory_text
from flowsr._support.names import printable, visible
from flowsr.cli.console import say
from flowsr.cli.layout import LaidOutCommand, LaidOutGroup
from flowsr.cli.paths import claims
from flowsr.errors import FlowsrError, OutOfMemoryError, few_lines

EXAMPLE = "Such as: "
"""How the last line of a command's help starts."""

INTERRUPTED = 130
MISTAKE = 2

_USAGE: Any = typer.BadParameter.__mro__[1]  # a command line that is wrong in whatever way; it has no public name
_NO_ROOM = re.compile(
    "(not enough|can't allocate|cannot allocate|out of) memory"
    "|could not create a (primitive|memory)|failed to map segment",  # oneDNN, and the loader of libraries
    re.IGNORECASE,
)
_ASKED = re.compile(r"allocate (?:an array of )?(?:about )?([0-9.]+) (bytes|[KMGT]iB)")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SMALLER = "take a smaller image, crop or batch, or fewer draws; training also takes less with --memory checkpoint"
_WEIGHTS = (".safetensors", ".pth", ".pt")


class GuardedGroup(LaidOutGroup):
    """A group of commands that turns users' mistakes into one sentence on stderr and exit code 2, Ctrl-C into 130.

    The library raises ValueError, OSError and its own FlowsrError for what a user can mend; all else is a bug and
    keeps its traceback. ``flowsr --traceback COMMAND`` shows the traceback of mistakes too.
    """

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Read what stands before the command, inside the guard."""
        with _guarded():
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        """Run the command inside the guard."""
        with _guarded(traceback=ctx.params.get("traceback", False)), claims(), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return super().invoke(ctx)


@contextmanager
def _guarded(*, traceback: bool = False) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say("\nInterrupted. Files already written are whole; nothing half-written was left.")
        raise typer.Exit(INTERRUPTED) from None
    except _USAGE as error:
        if isinstance(error, typer.BadParameter):
            explain(error)
        error.message = visible(error.message)
        raise
    except (ValueError, OSError, FlowsrError, MemoryError, RuntimeError, ImportError) as error:
        short = shortage(error)
        ours = short or isinstance(error, FlowsrError)
        if traceback or isinstance(error, typer.Exit) or (isinstance(error, RuntimeError | ImportError) and not ours):
            raise
        say(f"Error: {short or sentence(error)}")
        raise typer.Exit(MISTAKE) from None


def _show_warning(message: Warning | str, *_where: Any, **_more: Any) -> None:
    say(f"Warning: {message}")


class GuardedCommand(LaidOutCommand):
    """A command that answers a model among its arguments, where images belong, with the command to type."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Look at the arguments before they are taken for images."""
        # While a shell waits for a completion nothing is refused, which would take the names of models and so torch.
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        # A command without a model of its own, as info, is asked about models too.
        if any(isinstance(param, TyperOption) and param.name == "model" and param.default for param in self.params):
            self._refuse_models(ctx, args)
        return super().parse_args(ctx, args)

    def _refuse_models(self, ctx: Any, args: list[str]) -> None:
        options, rest, _ = self.make_parser(ctx).parse_args(list(args))
        arguments = [param for param in self.params if isinstance(param, TyperArgument)]
        images = [*(text for param in arguments for text in _texts(options.get(str(param.name)))), *rest]
        model = next(filter(_is_model, images), None)
        if model is None:
            return
        images.remove(model)
        if not images and any(param.required for param in arguments):
            images = [str(arguments[-1].metavar)]
            args = [*args, *images]
        told = options.get("model")
        command = shlex.join(["flowsr", str(ctx.info_name), *self._reordered(args, model, told=_texts(told))])
        raise ValueError(f"expected images; got {model}, a model, which goes behind --model: type {command}")

    def _reordered(self, args: list[str], model: str, *, told: Sequence[str]) -> list[str]:
        """The arguments with the model as an option, or without it where that option names one already."""
        valued = {name for p in self.params if isinstance(p, TyperOption) and not p.is_flag for name in p.opts}
        place = next(i for i, text in enumerate(args) if text == model and (i == 0 or args[i - 1] not in valued))
        others, option = [*args[:place], *args[place + 1 :]], [] if told else ["--model", model]
        return [*option, *others] if "--" in args else [*others, *option]


def _texts(value: Any) -> Sequence[str]:
    """The words of a parameter, of which there may be none, one or several."""
    return (value,) if isinstance(value, str) else value if isinstance(value, tuple | list) else ()


def _is_model(text: str) -> bool:
    path = Path(text)
    if path.suffix.lower() in _WEIGHTS or path.exists():
        return path.suffix.lower() in _WEIGHTS and not path.is_dir()
    from flowsr.models import presets

    return text in presets()


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


def shortage(error: BaseException | None) -> str:
    """What to say of an error that comes of too little memory, whatever it was taken for on its way; empty for others.

    Example:
        >>> shortage(RuntimeError("can't allocate memory: you tried to allocate 8000000000 bytes.")).split(": take")[0]
        'out of memory: 8.0 GB more were asked for than there are'
        >>> shortage(ValueError("expected 3 channels"))
        ''
    """
    while error is not None and not isinstance(error, OutOfMemoryError):
        if isinstance(error, MemoryError) or _NO_ROOM.search(str(error)):
            asked = _ASKED.search(str(error))
            much = f"{memory_text(float(asked[1]) * _UNITS[asked[2]])} more were" if asked else "more was"
            return f"out of memory: {much} asked for than there {'are' if asked else 'is'}: {_SMALLER}"
        error = error.__cause__ or error.__context__
    return ""


def sentence(error: Exception) -> str:
    """The message of an error on one line of bounded length; the system's errors without their number.

    Example:
        >>> sentence(FileNotFoundError(2, "No such file or directory", "cat.png"))
        'cat.png: no such file or directory'
        >>> sentence(ValueError("expected 3 channels;\\n  got 4"))
        'expected 3 channels; got 4'
    """
    if isinstance(error, OSError) and error.strerror:
        where = f"{printable(os.fsdecode(error.filename))}: " if error.filename is not None else ""
        return where + error.strerror[0].lower() + error.strerror[1:]
    return few_lines(" ".join(str(error).split())) or type(error).__name__
