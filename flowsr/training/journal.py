"""The logs of a run: rows in CSV files, and TensorBoard on request."""

import csv
import io
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flowsr._files import atomic_path


class CsvLog:
    """Rows of numbers appended to a CSV file, one per call, on the disk as soon as written.

    A resumed run continues the file: rows after the step it resumes from are dropped first, and a last line that a
    kill cut short. On a full disk rows wait in memory, with a warning, until there is room.

    Args:
        path: the file.
        columns: its columns; the first must be ``step``.
        start: the step the run starts at; rows of later steps are dropped.

    Example:
        >>> import tempfile
        >>> log = CsvLog(Path(tempfile.mkdtemp()) / "log.csv", ["step", "loss"])
        >>> log.write({"step": 1, "loss": 0.5})
        >>> log.close()
        >>> read_csv(log.path)
        [{'step': 1.0, 'loss': 0.5}]
    """

    def __init__(self, path: Path, columns: list[str], *, start: int = 0) -> None:
        self.path, self.columns = path, columns
        rows = [row for row in read_csv(path) if row.get("step", 0) <= start] if start and path.exists() else []
        with atomic_path(path) as temporary:
            head = f"{','.join(columns)}\n".encode()
            temporary.write_bytes(b"".join([head, *map(self._line, rows)]))
        self._unwritten = b""
        # Without a buffer of its own, whose content is lost or doubled when a write fails.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - held for the length of the run

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; columns that are missing stay empty."""
        waiting = bool(self._unwritten)
        self._unwritten += self._line(row)
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        except OSError as error:
            if not waiting:
                warnings.warn(f"could not write {self.path.name}: {error}; rows wait until there is room", stacklevel=2)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _line(self, row: dict[str, Any]) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore", restval="", lineterminator="\n")
        writer.writerow({key: _format(key, value) for key, value in row.items()})
        return text.getvalue().encode()


def read_csv(path: Path) -> list[dict[str, float]]:
    """The rows of a log as numbers, without empty cells and without a last line that was cut short."""
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    rows = []
    for row in csv.DictReader(whole.splitlines()):
        try:
            rows.append({key: float(value) for key, value in row.items() if value})
        except (TypeError, ValueError):
            continue
    return rows


def _format(key: str, value: Any) -> Any:
    if key in ("step", "skipped"):
        return int(value)
    return f"{value:.6g}" if isinstance(value, float) else value


def require_tensorboard() -> None:
    """Raise ValueError, with advice, if TensorBoard is not installed: it is an extra of the package."""
    if find_spec("tensorboard") is None:
        raise ValueError(
            "expected TensorBoard to be installed, to write its logs; it is not: pip install 'flowsr[tensorboard]', or "
            "do without"
        )


def tensorboard_writer(folder: Path, *, start: int = 0) -> Any:
    """Lightning's TensorBoard logger, which a run that goes on at ``start`` lets forget the steps after it."""
    from lightning.fabric.loggers.tensorboard import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="", purge_step=start + 1 if start else None)
