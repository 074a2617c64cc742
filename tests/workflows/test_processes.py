"""Commands under torchrun share images out: two processes leave, bit for bit, what one leaves."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import tiny
from PIL import Image

import flowsr
from flowsr.errors import ImageError
from flowsr.images import write_image
from flowsr.workflows.evaluate import evaluate_files
from flowsr.workflows.processes import Processes

COMMANDS = {
    "sample": (["sample", "lr", "-n", "2", "--moments", "-t", "0.8", "-t", "0"], "samples.json"),
    "sample-with-truth": (["sample", "lr", "--hr", "hr"], "samples.json"),
    "score": (["score", "hr", "-n", "2", "--official"], "scores.json"),
    "evaluate": (["evaluate", "hr"], "evaluation.json"),
    "uncertainty": (["study", "uncertainty", "hr", "--crop", "16", "-n", "12"], "uncertainty.json"),
    "calibration": (["study", "calibration", "hr", "--crop", "16", "-n", "19", "--pairs", "20"], "calibration.json"),
}
"""Commands that processes share the work of, and where they write what they found."""

DIFFERENT = {"processes", "seconds_encode", "seconds_draw"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    for kind, (height, width) in {"hr": (32, 40), "lr": (8, 10)}.items():
        (folder / kind).mkdir()
        for i in range(3):
            generator = torch.Generator().manual_seed(i)
            write_image(folder / kind / f"{i}.png", torch.rand(3, height, width, generator=generator))
    with torch.random.fork_rng():
        flowsr.save(tiny("sr-x4", strength=0.05), folder / "model.safetensors")
    return folder


def launch(arguments, *, processes, cwd):
    command = [sys.executable, "-m", "flowsr", *arguments, "--model", "model.safetensors", "--device", "cpu"]
    if processes > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=cwd)


def told(value):
    """A document without what may differ: times, and how many processes there were."""
    if isinstance(value, dict):
        return {key: told(inner) for key, inner in value.items() if key not in DIFFERENT}
    return [told(inner) for inner in value] if isinstance(value, list) else value


def timed(text):
    """Columns of the time are the only ones whose summary may differ."""
    document = told(json.loads(text))
    document["columns"] = [one for one in document.get("columns", []) if one["key"] not in DIFFERENT]
    return document


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_two_processes_leave_what_one_does(place, tmp_path, name):
    arguments, listing = COMMANDS[name]
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(launch, [*arguments, "--out", tmp_path / f"{n}", "--json"], processes=n, cwd=place)
            for n in (1, 2)
        ]
    one, two = (future.result() for future in runs)
    assert one.returncode == two.returncode == 0, two.stderr[-3000:]
    files = [sorted(path.name for path in (tmp_path / n).iterdir()) for n in "12"]
    assert files[0] == files[1] and listing in files[0]
    assert timed(one.stdout) == timed(two.stdout), "printed once, by the first"
    assert timed((tmp_path / "1" / listing).read_text()) == timed((tmp_path / "2" / listing).read_text())
    for picture in (path for path in files[0] if path.endswith(".png")):
        found = [Image.open(tmp_path / n / picture).convert("RGBA").tobytes() for n in "12"]
        assert found[0] == found[1], picture
    if name in ("sample", "score"):
        assert len(files[0]) > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sample", "score", "evaluate"])
def test_a_damaged_image_in_one_process_stops_all(place, tmp_path, name):
    for folder in (tmp_path / "hr", tmp_path / "lr"):
        folder.mkdir()
        write_image(folder / "0.png", torch.rand(3, 32, 32))
        (folder / "1.png").write_text("not an image")
    (tmp_path / "model.safetensors").symlink_to(place / "model.safetensors")
    result = launch([*COMMANDS[name][0], "--out", "out"], processes=2, cwd=tmp_path)
    assert result.returncode != 0 and "1.png" in result.stderr
    assert not (tmp_path / "out").exists(), "the image that is good is in the other process, and not begun"


def test_files_are_looked_at_before_any_is_measured(place, tmp_path):
    files, done = [tmp_path / "0.png", tmp_path / "1.png"], []
    write_image(files[0], torch.rand(3, 32, 32))
    files[1].write_text("not an image")
    with pytest.raises(ImageError, match=r"1\.png"):
        evaluate_files(flowsr.load(place / "model.safetensors"), files, on_image=done.append)
    assert not done


def test_results_of_several_processes_are_put_in_the_order_of_the_items(monkeypatch):
    """Each process does its share; what the others found comes from the group, here played by the shares themselves."""
    items = list(range(7))
    for rank in range(3):
        own = Processes(rank=rank, count=3)
        asked = []

        def gather(self, work, asked=asked):
            asked.append(work())
            return [[item**2 for item in items[other::3]] for other in range(3)]

        monkeypatch.setattr(Processes, "gather", gather)
        assert own.each(items, lambda item: item**2) == [item**2 for item in items]
        assert asked == [[item**2 for item in items[rank::3]]]
