"""Exercises are made of their solutions: ``python tests/exercises.py`` writes them anew after a solution was changed.

In a solution the functions to be written have docstrings that begin with "Task"; in the exercise they are empty.
"""

import ast
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "examples" / "exercises"
SOLUTIONS = sorted(FOLDER.glob("plot_solution_*.py"))


def exercise_of(solution: Path) -> Path:
    """Where the exercise of a solution is."""
    return solution.with_name(solution.name.replace("plot_solution", "exercise"))


def tasks(text: str) -> list[ast.FunctionDef]:
    """The functions to be written, in the order of the page."""
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return [node for node in functions if (ast.get_docstring(node) or "").startswith("Task ")]


def emptied(text: str) -> str:
    """The text of a solution without what is to be written."""
    lines = text.replace("\nSolution ", "\nExercise ", 1).split("\n")
    for task in reversed(tasks(text)):  # from the end, as lines are numbered as they were
        first, last = task.body[1], task.body[-1]
        lines[first.lineno - 1 : last.end_lineno] = ['    raise NotImplementedError("write this function")']
    return "\n".join(lines)


if __name__ == "__main__":
    for path in SOLUTIONS:
        exercise_of(path).write_text(emptied(path.read_text()))
