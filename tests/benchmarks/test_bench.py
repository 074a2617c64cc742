"""The benchmark: what it counts as the bare minimum, and what its command prints and writes."""

import json

import pytest
import torch
from cases import tiny
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import bench
from benchmarks.convolutions import Convolution, bare, convolutions_of
from benchmarks.graphs import Remembering


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(bench, "from_preset", tiny)
    monkeypatch.setattr(bench, "keep_freed_memory", lambda: True)


def test_the_bare_convolutions_are_those_of_the_work():
    model = tiny("sr-x4")
    lr = torch.rand(2, 3, 4, 4)
    calls = convolutions_of(lambda: model.decode(lr))
    assert len(calls) > 50
    assert convolutions_of(bare(calls)) == calls, "the same shapes, kernels, paddings and dtypes, in the same order"
    steps = [module for module in model.modules() if type(module).__name__ == "InvertibleConv1x1"]
    mixings = [call for call in calls if call.kernel[2:] == (1, 1) and call.kernel[0] == call.kernel[1] > 5]
    assert len(mixings) == len(steps), "1x1 convolutions count, however they are computed"
    with torch.no_grad():
        assert convolutions_of(lambda: model.decode(lr)) == calls, "and so do those with weights made ready"
        with torch.autocast("cpu", torch.bfloat16):
            mixed = convolutions_of(lambda: model.decode(lr))
    assert {call.dtype for call in mixed} == {torch.float32, torch.bfloat16}, "1x1 convolutions stay in float32"


def test_bare_convolutions_with_gradients_cost_more_than_without(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.autograd, "grad", lambda y, inputs, slope: asked.append((y.shape, len(inputs))))
    calls = [Convolution((2, 3, 4, 5), (6, 3, 3, 3), has, 1, torch.float32) for has in (True, False)]
    bare(calls)()
    assert asked == []
    bare(calls, backward=True)()
    assert asked == [((2, 6, 4, 5), 3), ((2, 6, 4, 5), 2)]


@pytest.mark.parametrize("row", ["decode-2x20", "log_prob-2x20", "bf16-2x20", "step-fp32", "step-bf16"])
def test_rows_of_passes_run(row, monkeypatch):
    small = {"decode-2x20": (bench._decode, "sr-x4", 1, 4), "log_prob-2x20": (bench._log_prob, "sr-x4", 1, 4)}
    function, *size = small.get(row, (bench._step, "sr-x4", 1, 8) if "step" in row else (bench._decode, "sr-x4", 1, 4))
    options = {"bf16": True} if "bf16" in row else {}
    work, alone = function(*size, "cpu", **options)
    work()
    assert alone() is None


def test_chains_are_counted_by_the_gradients_they_ask_for(monkeypatch):
    monkeypatch.setattr(bench.flowsr, "load", lambda name: tiny(name, strength=0.02))

    def ask(log_likelihood, starts, *_, **__):
        for batch in (4, 1, 1):
            log_likelihood(starts[:batch].requires_grad_())
        log_likelihood(torch.zeros(7, starts.shape[1]))

    monkeypatch.setattr(bench, "sample_chains", ask)
    work, alone = bench._chains(4, "cpu")
    work()
    runs = []
    monkeypatch.setattr(bench.InverseProblem, "decode", lambda self, u: runs.append(len(u)) or u[:, :1, None, None])
    monkeypatch.setattr(bench.InverseProblem, "log_likelihood", lambda self, hr: hr.sum())
    alone()
    assert runs == [4, 4], "six gradients are two batches of four, and what asks for none is not one"


def test_a_ratio_beyond_its_bar_is_said_to_be(monkeypatch):
    clock = iter([0.0, 2.0, 2.0, 3.0, *[0.0, 3.0, 3.0, 4.0], *[0.0, 1.0, 1.0, 2.0]])
    monkeypatch.setattr(bench.time, "process_time", lambda: next(clock))
    monkeypatch.setitem(bench.ROWS, "row", bench.Row("work", lambda _: (lambda: None, lambda: None), 1.5))
    found = bench.measure("row", repeats=2)
    assert (found.ratio, found.seconds, found.alone) == (2.0, 2.0, 1.0)
    assert found.spread == (1.5, 2.5)
    assert "BEYOND its bar of 1.50" in str(found)
    with pytest.raises(ValueError, match="expected repeats >= 1; got 0"):
        bench.measure("row", repeats=0)


def test_the_command_prints_and_writes_what_it_measures(capsys, monkeypatch, tmp_path):
    row = bench.Row("a decode", lambda device: bench._decode("sr-x4", 1, 4, device), 1e9)
    monkeypatch.setitem(bench.ROWS, "tiny", row)
    monkeypatch.setitem(bench.ROWS, "tight", bench.Row("the same", row.prepare, 1e-9))
    arguments = ["--repeats", "2", "--json", str(tmp_path / "new" / "a.json"), "--out", str(tmp_path / "new" / "a.png")]
    assert bench.main(["tiny", *arguments]) == 0
    assert bench.main(["tiny", "tight", *arguments]) == 1
    printed = capsys.readouterr().out
    assert "bar 1000000000.00" in printed and "BEYOND" in printed
    facts = json.loads((tmp_path / "new" / "a.json").read_text())
    assert [found["row"] for found in facts["rows"]] == ["tiny", "tight"]
    assert all(found["seconds"] > 0 and found["ratio"] > 0.5 for found in facts["rows"])
    assert facts["device"] == "cpu" and facts["cpu"] and facts["freed memory"] == "kept"
    assert (tmp_path / "new" / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit):
        bench.main(["nothing"])
    assert "expected rows of decode-2x20" in capsys.readouterr().err


def test_what_depends_on_weights_alone_is_computed_once():
    model, again = tiny("sr-x4", strength=0.1).eval(), Remembering()
    lr = torch.rand(1, 3, 4, 4)
    first, second = (model.draw_latents(lr, temperature=1.0) for _ in range(2))
    asked = []
    with torch.no_grad():
        with again:
            model.decode_unchecked(lr, first)
        with again, Counting(asked):
            found = model.decode_unchecked(lr, second)
        assert not asked, "nothing is left that a CUDA graph could not hold"
        assert torch.equal(found, model.decode_unchecked(lr, second)), "and the draw is another one"


class Counting(TorchDispatchMode):
    """Notes what waits for the device: checks of inverses, numbers read back, and numbers brought there."""

    def __init__(self, asked):
        super().__init__()
        self.asked = asked

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in ("linalg", "local_scalar", "lift_fresh", "nonzero")):
            self.asked.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_row_that_cannot_run_does_not_cost_the_others(capsys, monkeypatch, tmp_path):
    row = bench.Row("a decode", lambda device: bench._decode("sr-x4", 1, 4, device), 1e9)
    monkeypatch.setitem(bench.ROWS, "tiny", row)
    arguments = ["--repeats", "1", "--json", str(tmp_path / "a.json")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.main(["graph-small-1x20", "tiny", *arguments]) == 1
    assert "could not be measured: CUDA graphs need a GPU; this machine has none" in capsys.readouterr().out
    facts = json.loads((tmp_path / "a.json").read_text())
    assert [found["row"] for found in facts["rows"]] == ["tiny"] and list(facts["could_not_be_measured"])


def test_compiled_work_and_rows_by_device():
    assert set(bench.rows_for("cuda")) == set(bench.ROWS) > set(bench.rows_for("cpu"))
    assert {"solve-256", "graph-2x20", "compile-small-4x40"} == {*bench.rows_for("cuda")} - {
        *bench.rows_for("cpu"),
        "graph-small-4x40",
        "graph-small-1x20",
    }
    work, alone = bench._repeated("sr-x4-small", 1, 4, "cpu", made=lambda work: work)
    assert torch.equal(work(), alone()) and not work().requires_grad
