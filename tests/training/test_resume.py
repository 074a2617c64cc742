"""What a run that goes on says of what it is given, and what befalls the files of a run meanwhile: a sentence each."""

import dataclasses
import multiprocessing
import multiprocessing.reduction
import os
import pickle
import signal
import subprocess
import sys
import warnings

import pytest
import torch
from cases import TINY

import flowsr
from flowsr.errors import ImageError
from flowsr.images import bicubic_down, write_image
from flowsr.models import HCFlow
from flowsr.training import Batch, CheckpointFolder, Data, Recipe, Run, recipe, train
from flowsr.training.journal import read_csv
from flowsr.training.preparation import WITHOUT_EFFECT, _say_differences
from flowsr.training.settings import settings_of

QUICK = {"accelerator": "cpu", "progress": False, "pictures": False, "validate_every": 0, "log_every": 1}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        write_image(folder / f"{i}.png", torch.rand(3, 24, 28))
    return folder


def short(steps=3, **changes):
    return recipe("nll", steps=steps, **{"halve_at": (), "batch_size": 2, "crop": 16, "learning_rate": 1e-4, **changes})


def trained(data, out, *, steps=3, run=None, **settings):
    torch.manual_seed(8)
    flow = HCFlow.from_preset("sr-x4-small", start="haar", **TINY)
    return train(flow, data, out=out, recipe=short(steps), run=run or Run(**QUICK), **settings)


def messages_of(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(warning.message) for warning in caught]


# -- what is not as it was

OTHERS = {
    "accelerator": "cpu",
    "precision": "bf16",
    "memory": "reversible",
    "validate_at": (3,),
    "vgg": "vgg.pth",
    "lr_folders": "lr",
    "validation": "validation",
    "degradation": flowsr.training.BlurNoiseJPEG(),
    "folders": "elsewhere",
    "name": "mine",
    "task": "rescaling",
    "halve_at": (0.25,),
    "cosine_to": 1e-6,
    "adversary": "relativistic",
    "lr_log_scale_start": -1.0,
    "betas": (0.5, 0.9),
    "scales": (1.0, 0.5),
    "ema": 0.5,
}


def other(name, value):
    """Another value of a field that is allowed."""
    if name in OTHERS:
        return OTHERS[name]
    return not value if isinstance(value, bool) else value + 1


def facts(recipe, data, run):
    about = {"recipe": recipe.to_dict(), "data": "digest", "choice of crops": data.choice_of_crops(run.seed)}
    return {**about, "settings": settings_of(data, run, start="haar")}


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field.name) for kind in (Run, Data, Recipe) for field in dataclasses.fields(kind)]
)
def test_resuming_says_every_difference_of_what_it_is_given(kind, field):
    first = {"recipe": recipe("nll", halve_at=()), "data": Data(folders="images"), "run": Run()}
    second = dict(first)
    (which,) = [name for name, value in first.items() if isinstance(value, kind)]
    value = other(field, getattr(first[which], field))
    changed = dataclasses.replace(first[which])
    object.__setattr__(changed, field, value)  # a value that other fields may not allow is a difference all the same
    second[which] = changed
    said = messages_of(lambda: _say_differences(facts(**first), facts(**second), step=7))
    if field == "progress":  # how it is shown
        assert said == []
        return
    assert len(said) == 1 and said[0].startswith("resuming at step 7 with ")
    assert f"({field} " in said[0] and "→" in said[0]
    assert said[0].endswith("weights do not depend on that" if field in WITHOUT_EFFECT else "as another run")
    assert messages_of(lambda: _say_differences(facts(**first), facts(**first), step=7)) == []


def test_settings_without_effect_are_settings():
    known = {field.name for kind in (Run, Data) for field in dataclasses.fields(kind)}
    assert {*known, "start"} > WITHOUT_EFFECT


def test_runs_say_precision_accumulation_and_what_is_only_shown(images, tmp_path):
    out = tmp_path / "run"
    trained(images, out)
    changed = Run(**{**QUICK, "log_every": 2}, precision="bf16", accumulate=2)
    said = messages_of(lambda: trained(images, out, steps=4, run=changed, resume=True))
    assert "resuming at step 3 with other settings than before (precision fp32 → bf16, accumulate 1 → 2): " in said[1]
    assert said[1].endswith("the run goes on, but as another run")
    assert said[2].endswith("other settings than before (log_every 1 → 2): its weights do not depend on that")
    assert len(said) == 3 and "another recipe" in said[0]


def test_checkpoints_of_earlier_versions_tell_no_settings(images, tmp_path):
    out = tmp_path / "run"
    trained(images, out)
    checkpoints = CheckpointFolder(out / "checkpoints")
    step, state = checkpoints.read_last()
    del state["about"]["settings"], state["about"]["choice of crops"]["images"]
    checkpoints.write(step, state)
    assert messages_of(lambda: trained(images, out, run=Run(**QUICK, accumulate=2), resume=True)) == []


def test_checkpoints_from_before_there_was_grain_had_none(images, tmp_path):
    out = tmp_path / "run"
    trained(images, out)
    checkpoints = CheckpointFolder(out / "checkpoints")
    step, state = checkpoints.read_last()
    del state["about"]["choice of crops"]["grain"]
    checkpoints.write(step, state)
    assert messages_of(lambda: trained(images, out, resume=True)) == []
    said = messages_of(lambda: trained(Data(folders=images, grain=4.0), out, steps=4, resume=True))
    expected = "another choice of crops than before (grain 0.0 → 4.0): the run goes on, but as another run"
    assert any(message.endswith(expected) for message in said)


def test_functions_are_named_and_not_by_their_address():
    def darker(hr, *, upscale, generator):
        return bicubic_down(hr, upscale) * 0.5

    class Darker:
        __call__ = staticmethod(darker)

    for degradation in (darker, Darker()):
        told = Data(folders="images", degradation=degradation).to_dict()["degradation"]
        assert told.lower().endswith("<locals>.darker") and "0x" not in told


# -- to the last bit


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_random_state_is_that_of_a_run_at_a_go(images, tmp_path, workers):
    """Of torch, numpy and Python; a degradation that draws from it against the rules sees the same numbers too."""

    def noisy(hr, *, upscale, generator):
        return (bicubic_down(hr, upscale) + 0.1 * torch.rand(())).clamp(0, 1)

    data = Data(folders=images, hold_out=1, workers=workers, degradation=None if workers else noisy)
    run = Run(**{**QUICK, "validate_every": 2, "checkpoint_every": 2})
    whole = trained(data, tmp_path / "whole", steps=4, run=run)
    at_a_go = torch.get_rng_state()
    trained(data, tmp_path / "part", steps=4, run=run)
    (tmp_path / "part" / "checkpoints" / "step-00000004.ckpt").unlink()
    resumed = trained(data, tmp_path / "part", steps=4, run=run, resume=True)
    assert torch.equal(torch.get_rng_state(), at_a_go)
    for ours, theirs in zip(whole.flow.state_dict().values(), resumed.flow.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


# -- what befalls files


def once(action):
    """A degradation that does something in its fifth call, on the way through the third step."""

    def degradation(hr, *, upscale, generator):
        degradation.calls += 1
        if degradation.calls == 7:
            action()
        return bicubic_down(hr, upscale)

    degradation.calls = 0
    return degradation


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("strict", [False, True])
def test_images_that_are_deleted_or_renamed_during_a_run_are_a_sentence(images, tmp_path, workers, strict):
    degradation = once(lambda: images.rename(tmp_path / "elsewhere"))
    data = Data(folders=images, degradation=degradation, cache_bytes=0, workers=workers, strict=strict)
    run = Run(**QUICK, checkpoint_every=1)
    with pytest.raises(ImageError) as error:
        trained(data, tmp_path / "run", steps=30, run=run)
    first = f"{images}/" if strict else "expected at least one readable image; none of 4 is left, the last as "
    assert str(error.value).startswith(first) and "no such file" in str(error.value).lower()
    assert "\n" not in str(error.value) and "Traceback" not in str(error.value)
    assert CheckpointFolder(tmp_path / "run" / "checkpoints").steps()  # to go on from when they are back


def test_a_run_that_failed_leaves_no_process_that_its_traceback_would_keep(images, tmp_path):
    def degradation(hr, *, upscale, generator):
        if torch.utils.data.get_worker_info() is not None:
            raise ArithmeticError("in a worker")
        return bicubic_down(hr, upscale)

    with pytest.raises(ArithmeticError, match="in a worker") as kept:
        trained(Data(folders=images, degradation=degradation, workers=2), tmp_path / "run")
    assert kept.tb is not None and not multiprocessing.active_children()


def test_some_images_deleted_are_named_together(images, tmp_path):
    def delete():
        for name in "012":
            (images / f"{name}.png").unlink()

    data = Data(folders=images, degradation=once(delete), cache_bytes=0)
    said = messages_of(lambda: trained(data, tmp_path / "run", steps=8))
    left_out = [message for message in said if "left out" in message]
    assert 1 <= len(left_out) <= 3
    assert all(any(f"{name}.png" in message for message in left_out) for name in "012")


def test_a_folder_renamed_during_a_run_costs_nothing(images, tmp_path):
    out = tmp_path / "run"
    data = Data(folders=images, degradation=once(lambda: out.rename(tmp_path / "moved")))
    said = messages_of(lambda: trained(data, out, steps=6, run=Run(**QUICK, checkpoint_every=2)))
    (sentence,) = [message for message in said if "renamed or removed" in message]
    assert sentence.startswith(f"{out} has been renamed or removed during the run: what comes from step 4 on")
    assert CheckpointFolder(tmp_path / "moved" / "checkpoints").steps() == [2]
    assert CheckpointFolder(out / "checkpoints").steps() == [4, 6]
    assert flowsr.load(out / "model.safetensors").provenance["step"] == 6
    assert [row["step"] for row in read_csv(tmp_path / "moved" / "train.csv")] == list(range(1, 7))
    # The new folder is that of a run, to be gone on with.
    data = Data(folders=images, degradation=once(int))
    assert trained(data, out, steps=6, run=Run(**QUICK, checkpoint_every=2), resume=True).step == 6


def test_batches_of_workers_take_no_shared_memory(images):
    """Containers have 64 MB of it, or none."""
    batch = Batch(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 4, 4), torch.tensor([1, 2]), ("a",))
    sent = bytes(multiprocessing.reduction.ForkingPickler.dumps(batch))
    assert batch.hr.numpy().tobytes() in sent
    found = pickle.loads(sent)
    assert torch.equal(found.hr, batch.hr) and torch.equal(found.lr, batch.lr) and torch.equal(found.seeds, batch.seeds)
    assert (found.unreadable, found.lost) == (("a",), "")


def test_a_worker_that_is_killed_is_a_sentence(images, tmp_path):
    data = Data(folders=images, workers=1, degradation=once(lambda: os.kill(os.getpid(), signal.SIGKILL)))
    with pytest.raises(
        ChildProcessError, match=r"a process that prepares batches was killed.*with fewer workers or none$"
    ):
        trained(data, tmp_path / "run", steps=30)


def test_workers_that_cannot_be_started_are_a_sentence(images, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.data.DataLoader.__iter__", full)
    with pytest.raises(
        OSError, match=r"expected to start 2 processes that prepare batches; got .*: take fewer, or none"
    ):
        trained(Data(folders=images, workers=2), tmp_path / "run")


SMALL_SHM = "mount -t tmpfs -o size={} tmpfs /dev/shm && exec {} -m flowsr train {} --out {} --device cpu --workers 2"


@pytest.mark.slow
def test_a_small_shared_memory_is_enough(images, tmp_path):
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    line = SMALL_SHM.format("64k", sys.executable, images, tmp_path / "run")
    line += ' --set "steps=4 batch_size=16 crop=16"'  # a batch of 49 kB beside its LR images
    done = subprocess.run(["unshare", "-m", "sh", "-c", line], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
