"""Which files are trained on: each once, none of a run, none that is held out under another name, and any number."""

import json
import os
import resource
import subprocess
import sys
import warnings

import pytest
import torch
from cases import TINY

from flowsr.images import read_image, write_image
from flowsr.models import HCFlow
from flowsr.training import Data, ImageFolder, Run, recipe, train
from flowsr.training.sources import copies, find_images, other_names

QUICK = {"accelerator": "cpu", "progress": False, "pictures": False, "log_every": 1}


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "data" / "photographs"
    folder.mkdir(parents=True)
    for i in range(4):
        write_image(folder / f"{i}.png", torch.rand(3, 24, 28))
    return folder


def trained(data, out, *, steps=2, **settings):
    torch.manual_seed(8)
    flow = HCFlow.from_preset("sr-x4-small", start="haar", **TINY)
    chosen = recipe("nll", steps=steps, halve_at=(), batch_size=1, crop=16, learning_rate=1e-4)
    return train(flow, data, out=out, recipe=chosen, run=Run(**QUICK), **settings)


def recorded(out):
    return json.loads((out / "run.json").read_text())["images"]


def messages_of(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(warning.message) for warning in caught]


def test_links_to_folders_multiply_nothing_and_their_circles_end(photographs):
    top = photographs.parent
    (top / "again").symlink_to(".")
    (top / "a").symlink_to(photographs, target_is_directory=True)  # sorted before what it leads to
    (top / "b").mkdir()
    (top / "b" / "up").symlink_to("..")
    left_out = {}
    assert find_images(top, left_out=left_out) == [photographs / f"{i}.png" for i in range(4)]
    assert {path.name for path in left_out} >= {"a", "again", "up"}
    said = messages_of(lambda: ImageFolder(top))
    assert len(said) == 1 and "left out 3 folders: " in said[0]
    # A link is a folder like another where it leads to images by no other way.
    (top.parent / "elsewhere").mkdir()
    (top.parent / "elsewhere" / "link").symlink_to(photographs)
    assert len(find_images(top.parent / "elsewhere")) == 4


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_to_files_multiply_nothing(photographs, link):
    link(photographs / "3.png", photographs / "0-again.png")
    link(photographs / "3.png", photographs / "5.png")
    images = None

    def opened():
        nonlocal images
        images = ImageFolder(photographs)

    said = messages_of(opened)
    assert len(images) == 4 and len(said) == 1
    assert "left out 2 images that are there under another name: " in said[0]
    if link is os.symlink:
        assert [path.name for path, _ in images.pairs] == ["0.png", "1.png", "2.png", "3.png"]
        assert f"5.png (another name of {photographs / '3.png'})" in said[0]
    assert {path.rsplit("/", 1)[-1] for path in images.skipped} | {p.name for p, _ in images.pairs} == set(
        os.listdir(photographs)
    )
    # Equal images that are two files are two images.
    (photographs / "6.png").write_bytes((photographs / "2.png").read_bytes())
    assert messages_of(opened) and len(images) == 5


def test_folders_given_twice_count_once(photographs):
    with pytest.warns(UserWarning, match="left out 4 images that are there under another name"):
        assert len(ImageFolder([photographs, photographs.parent])) == 4
    assert other_names([photographs / "0.png", photographs / "1.png"]) == {}


@pytest.mark.parametrize("way", ["copy", "symlink", "hard link"])
@pytest.mark.parametrize("held", ["folder", "hold_out"])
def test_a_held_out_image_is_not_trained_on_under_another_name(photographs, tmp_path, way, held):
    kept = tmp_path / "kept"
    kept.mkdir()
    make = {
        "copy": lambda source, target: target.write_bytes(source.read_bytes()),
        "symlink": lambda source, target: target.symlink_to(source),
        "hard link": lambda source, target: os.link(source, target),
    }[way]
    if held == "folder":
        make(photographs / "2.png", kept / "mine.png")
        data = Data(folders=photographs, validation=kept)
    else:  # a second folder has every image once more, under other names
        for path in sorted(photographs.iterdir()):
            make(path, kept / f"copy-{path.name}")
        data = Data(folders=[photographs, kept], hold_out=1)
    words = "images that are validated with or held out" if held == "folder" or way == "copy" else "under another name"
    with pytest.warns(UserWarning, match=words):
        trained(data, tmp_path / "run")
    images = recorded(tmp_path / "run")
    assert images["validation"] == 1
    assert images["training"] == (6 if (held, way) == ("hold_out", "copy") else 3)
    if held == "folder" or way == "copy":
        (only,) = [entry for entry in images["left_out"] if "held out" in entry["reason"]]
        found, original = only["image"], only["reason"].removeprefix("the same as ").removesuffix(", which is held out")
        assert torch.equal(read_image(found), read_image(original))


def test_nothing_left_to_train_on_is_said(photographs, tmp_path):
    with (
        pytest.warns(UserWarning, match="left out 4 images"),
        pytest.raises(
            ValueError, match="expected images to train on; all 4 are validated with or held out: add others"
        ),
    ):
        trained(Data(folders=photographs, validation=photographs), tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_copies_are_told_by_content_not_by_size(tmp_path):
    for name, content in {"a": b"12", "b": b"13", "c": b"12", "d": b"123"}.items():
        (tmp_path / name).write_bytes(content)
    a, b, c, d = (tmp_path / name for name in "abcd")
    assert copies([a, b, d], of=[c]) == {a: c}
    assert copies([a, tmp_path / "gone"], of=[tmp_path / "gone too"]) == {}


def test_pictures_of_runs_are_not_trained_on(photographs, tmp_path):
    top = photographs.parent
    run, data = top / "runs" / "first", Data(folders=top, hold_out=1)
    trained(data, run)
    write_image(run / "curve.png", torch.rand(3, 64, 64))
    (run / "pictures").mkdir()
    write_image(run / "pictures" / "step-1.png", torch.rand(3, 64, 64))
    with pytest.warns(UserWarning, match=r"left out 1 folders: \S*first \(the folder of a run\)"):
        trained(data, top / "second")
    assert recorded(top / "second")["training"] == 3
    # --out before there is a run in it, with pictures of something else.
    (top / "third").mkdir()
    write_image(top / "third" / "x.png", torch.rand(3, 64, 64))
    with pytest.warns(UserWarning, match="left out 2 folders"):
        trained(data, top / "third")
    assert recorded(top / "third")["training"] == 3
    with pytest.warns(UserWarning, match="left out 2 folders"):
        trained(data, top / "third", steps=2, resume=True)
    assert recorded(top / "third")["training"] == 3


def test_the_folder_of_a_run_is_no_folder_of_images(photographs, tmp_path):
    with pytest.raises(ValueError, match=r"expected a folder of images; got \S*photographs, the folder of a run"):
        trained(Data(folders=photographs), photographs)
    assert sorted(os.listdir(photographs)) == [f"{i}.png" for i in range(4)]
    trained(Data(folders=photographs), photographs.parent)  # which may hold the images in a folder of theirs
    trained(Data(folders=photographs), tmp_path / "run")
    write_image(tmp_path / "run" / "curve.png", torch.rand(3, 64, 64))
    with pytest.raises(ValueError, match=r"got \S*run, the folder of a run, whose pictures are not to be trained on"):
        trained(Data(folders=tmp_path / "run"), tmp_path / "other")


def test_open_files_do_not_grow_with_the_images(tmp_path):
    write_image(tmp_path / "0.png", torch.rand(3, 16, 20))
    for i in range(1, 150):
        (tmp_path / f"{i}.png").write_bytes((tmp_path / "0.png").read_bytes())
    before = len(os.listdir("/proc/self/fd"))
    images = ImageFolder(tmp_path)
    assert images.cached == 150 and len(os.listdir("/proc/self/fd")) == before
    expected = read_image(tmp_path / "0.png")
    assert all(torch.equal(hr.float() / 255, expected) for hr, _ in images)


def test_a_cache_of_several_blocks_gives_back_what_it_was_given(photographs, monkeypatch):
    monkeypatch.setattr("flowsr.training.data._BLOCK", 3000)  # one image and a half
    images = ImageFolder(photographs)
    assert len(images._pixels._blocks) > 1
    for (path, _), (hr, _) in zip(images.pairs, images, strict=False):
        assert torch.equal(hr.float() / 255, read_image(path))


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from flowsr.cli.app import app
app(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_more_images_than_files_may_be_open(tmp_path, workers):
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(folder / "0.png", torch.rand(3, 24, 20))
    content = (folder / "0.png").read_bytes()
    for i in range(1, 1100):
        (folder / f"{i}.png").write_bytes(content)
    out = tmp_path / "run"
    changes = ["--set", "steps=3 batch_size=4 crop=16", "--workers", str(workers), "--device", "cpu"]
    command = [sys.executable, "-c", FEW_FILES, "64", "train", str(folder), "--out", str(out), *changes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert recorded(out)["training"] == 1100


def test_a_checkpoint_that_finds_no_free_file_says_so(tmp_path):
    """The one who reports it needs none: not to look how many checkpoints there are."""
    from flowsr.training import CheckpointFolder

    checkpoints = CheckpointFolder(tmp_path, keep=2)
    checkpoints.write(1, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)  # the lowest number there is
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.warns(
            UserWarning, match=r"could not write the checkpoint of step 2: .*Too many open files.*is of step 1$"
        ):
            assert not checkpoints.write(2, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert checkpoints.steps() == [1]
