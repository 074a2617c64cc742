"""The script for a machine with a GPU: what it says where there is none, its budgets, its wheels, and a run of it."""

import json
import os
import subprocess
import sys
import time
import zipfile

import pytest
import torch

from benchmarks import gpu, wheels
from benchmarks.bench import ROWS


def test_without_a_gpu_it_says_so_and_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "facts", lambda environment: {"torch": "2.11"})
    assert gpu.main(["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said == "expected a machine with a CUDA device; torch finds none here: nothing was run\n"
    assert not (tmp_path / "out").exists()


def test_what_fails_or_takes_too_long_does_not_cost_the_rest(tmp_path, monkeypatch, capsys):
    long = "import subprocess, time; print('began', flush=True); time.sleep(60)"
    some = [
        gpu.Part("long", ("-c", long), 1.5),
        gpu.Part("bad", ("-c", "print('words'); raise SystemExit(3)"), 60),
        gpu.Part("good", ("-c", "import os; print(os.environ['FLOWSR_GPU_TESTS_ON'])"), 60),
    ]
    monkeypatch.setattr(gpu, "parts", lambda *_, **__: some)
    begin = time.monotonic()
    assert gpu.main(["--device", "cpu", "--quick", "--out", str(tmp_path)]) == 1
    assert time.monotonic() - begin < 50
    found = json.loads((tmp_path / "summary.json").read_text())
    assert [(part["name"], part["code"], part["said"]) for part in found["parts"]] == [
        ("long", None, "began"),
        ("bad", 3, "words"),
        ("good", 0, "cpu"),
    ]
    assert found["machine"]["torch"] == torch.__version__
    printed = capsys.readouterr().out
    assert "TOO LONG" in printed and "FAILED (3)" in printed and "passed" in printed
    assert printed.strip().splitlines()[-1] in (tmp_path / "log.txt").read_text()


def test_its_parts_fit_into_the_time_and_name_every_row(tmp_path):
    found = gpu.parts("cuda", tmp_path, quick=False, total=470)
    *before, training = found
    assert sum(part.budget for part in before) + gpu._LEAST < 470 and training.budget >= 300
    named = {word for part in found for word in part.command if word in ROWS}
    assert named == set(ROWS)


def test_wheels_are_what_the_machine_lacks():
    found = wheels.lacking()
    assert {"pyro-ppl", "pyro-api", "lpips", "safetensors", "jaxtyping", "typer", "pytest"} <= set(found)
    assert not {"torch", "torchvision", "lightning", "numpy", "scikit-image", "nvidia-nccl-cu13"} & set(found)


def test_only_missing_wheels_are_installed(tmp_path):
    for name in ("torch", "flowsr_not_here"):
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as file:
            file.writestr(f"{name}.py", "found = 3\n")
            file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr(f"{info}/RECORD", "")
    assert wheels.install(tmp_path, tmp_path / "packages") == ["flowsr_not_here"]
    assert sorted(path.name for path in (tmp_path / "packages").glob("*.py")) == ["flowsr_not_here.py"]
    with pytest.raises(FileNotFoundError, match=r"expected wheels in .*; found none"):
        wheels.install(tmp_path / "packages", tmp_path)


@pytest.mark.slow
def test_a_little_of_each_part_runs_on_the_cpu(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--out", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500, env={**os.environ})
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    parts = {part["name"]: part for part in found["parts"]}
    assert parts["tests"]["code"] == 0 and "6 passed" in parts["tests"]["said"], result.stdout
    assert "small-1x20" in parts["passes"]["said"] and "decode sr-x4-small" in parts["passes"]["said"]
    if not torch.cuda.is_available():
        assert parts["graphs"]["said"].endswith("CUDA graphs need a GPU; this machine has none")
        assert result.returncode == 1
    assert parts["training"]["code"] == 0, result.stdout
    reached = json.loads((tmp_path / "out" / "training" / "training.json").read_text())
    assert reached["steps"] >= 3 and reached["validation"]["bits_per_dim"] > 0
    assert (tmp_path / "out" / "tests.xml").exists() and (tmp_path / "out" / "passes.json").exists()
    assert "actnorm" in (tmp_path / "out" / "log.txt").read_text()
