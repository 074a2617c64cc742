"""Images in, batches out: nothing unreadable goes unnoticed, and sample n is the same wherever it is made."""

import pickle
import warnings

import pytest
import torch

from flowsr.errors import ImageError
from flowsr.images import bicubic_down, make_lr, read_image, round_to_8bit, write_image
from flowsr.training import BlurNoiseJPEG, CropBatches, ImageFolder
from flowsr.training.crops import derive_seed
from flowsr.training.data import gaussian_blur, jpeg
from flowsr.training.sources import find_images


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "hr"
    path.mkdir()
    for i in range(5):
        write_image(path / f"image{i}.png", torch.rand(3, 40 + 4 * i, 52))
    return path


def batches(folder, **changes):
    images = folder if isinstance(folder, ImageFolder) else ImageFolder(folder, minimum=32)
    settings = {"crop": 32, "upscale": 4, "batch_size": 4, "seed": 3, **changes}
    return CropBatches(images, range(len(images)), **settings)


def same(a, b):
    return torch.equal(a.hr, b.hr) and torch.equal(a.lr, b.lr) and torch.equal(a.seeds, b.seeds)


def test_reads_what_the_files_hold(folder):
    images = ImageFolder(folder)
    assert len(images) == 5
    for (path, _), (hr, lr) in zip(images.pairs, images, strict=False):
        assert lr is None
        assert torch.equal(hr.float() / 255, read_image(path))


def test_a_batch_is_crops_of_the_images_with_their_bicubic_lr(folder):
    images = ImageFolder(folder)
    batch = batches(images, flips=False, rotations=False)[0]
    assert batch.hr.shape == (4, 3, 32, 32)
    for hr, lr in zip(batch.hr, batch.lr, strict=True):
        wholes = [images[i][0].float() / 255 for i in range(5)]
        windows = [w.unfold(1, 32, 1).unfold(2, 32, 1) for w in wholes]
        assert any((w == hr[:, None, None]).all(-1).all(-1).all(0).any() for w in windows)
        assert torch.equal(lr, make_lr(hr, 4))


def test_an_epoch_shows_every_image_once(folder):
    made = batches(folder)
    first, second = ([made._images(n, [])[0].shape[-2] for n in range(5 * e, 5 * e + 5)] for e in (0, 1))
    assert sorted(first) == sorted(second) == [40, 44, 48, 52, 56]
    orders = {tuple(made._images(n, [])[0].shape[-2] for n in range(5 * e, 5 * e + 5)) for e in range(6)}
    assert len(orders) > 1


def test_augmentation_flips_and_turns_hr_and_lr_alike(folder):
    seen = set()
    made = batches(folder, batch_size=1, crop=40)
    small = ImageFolder([folder / "image0.png"])
    made = CropBatches(small, [0], crop=40, upscale=4, batch_size=1, seed=0)
    square = small[0][0][:, :, :40].float() / 255
    for number in range(64):
        batch = made[number]
        assert torch.equal(batch.lr, make_lr(batch.hr, 4))
        for flip in (False, True):
            for turns in range(4):
                window = torch.rot90(square.flip(-1) if flip else square, turns, (-2, -1))
                if torch.equal(batch.hr[0], window):
                    seen.add((flip, turns))
    assert len(seen) >= 2  # 13 places along the width: few crops are the leftmost one


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 2), (2, 2)])
def test_samples_of_a_step_do_not_depend_on_how_they_are_shared_out(folder, world_size, accumulate):
    whole = batches(folder)[7]
    parts = [
        batches(folder, rank=rank, world_size=world_size, accumulate=accumulate)[7 * accumulate + micro]
        for rank in range(world_size)
        for micro in range(accumulate)
    ]
    assert torch.equal(torch.cat([part.hr for part in parts]), whole.hr)
    assert torch.equal(torch.cat([part.seeds for part in parts]), whole.seeds)
    shared = batches(folder, rank=1, world_size=2, accumulate=accumulate).whole()[7]
    assert same(shared, whole)


def test_workers_and_position_do_not_change_batches(folder):
    made = batches(folder, degradation=BlurNoiseJPEG(blur=(0.2, 1.0), noise=(0, 0.1), jpeg=(50, 90)))
    direct = [made[i] for i in range(3, 6)]
    loaded = list(made.loader(3, 6, workers=1))
    assert all(same(a, b) for a, b in zip(direct, loaded, strict=True))
    assert not same(made[3], batches(folder, seed=4)[3])


def test_damaged_and_small_images_are_named_and_left_out_or_stop(folder):
    (folder / "broken.png").write_bytes((folder / "image0.png").read_bytes()[:500])
    write_image(folder / "small.png", torch.rand(3, 8, 8))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = ImageFolder(folder, minimum=32)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2
    assert "left out image 1" in messages[0] and "broken.png" in messages[0]
    assert "left out image 2" in messages[1]
    assert "expected at least 32 pixels on each side; got 8 × 8 pixels" in messages[1]
    assert len(images) == 5
    assert {path.rsplit("/", 1)[-1] for path in images.skipped} == {"broken.png", "small.png"}
    with pytest.raises(ImageError, match=r"broken\.png cannot be used for training, and strict"):
        ImageFolder(folder, minimum=32, strict=True)


def test_an_image_that_breaks_later_is_replaced_and_reported(folder):
    images = ImageFolder(folder, minimum=32, cache_bytes=0)
    (folder / "image2.png").write_bytes(b"no longer an image")
    made = batches(images, batch_size=5)
    batch = made[0]
    assert batch.hr.shape[0] == 5
    assert any("image2.png" in message for message in batch.unreadable)
    images.strict = True
    with pytest.raises(ImageError, match=r"image2\.png"):
        made[0]


def test_nothing_usable_is_an_error(tmp_path):
    write_image(tmp_path / "small.png", torch.rand(3, 8, 8))
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ImageError, match=r"at least one usable image.*small\.png"),
    ):
        ImageFolder(tmp_path, minimum=32)


def test_the_cache_respects_its_limit(folder):
    all_bytes = sum(3 * (40 + 4 * i) * 52 for i in range(5))
    assert ImageFolder(folder, cache_bytes=all_bytes).cached == 5
    part = ImageFolder(folder, cache_bytes=all_bytes // 2)
    held = sum(part[i][0].numel() for i, places in enumerate(part._cached) if places is not None)
    assert 0 < part.cached < 5
    assert held <= all_bytes // 2
    none = ImageFolder(folder, cache_bytes=0)
    assert none.cached == 0
    assert same(batches(none)[0], batches(ImageFolder(folder))[0])


def test_paired_lr_images_are_matched_by_name_and_cropped_together(folder, tmp_path):
    low = tmp_path / "lr"
    low.mkdir()
    for path in find_images(folder):
        write_image(low / f"{path.stem}x4.png", bicubic_down(read_image(path), 4))
    images = ImageFolder(folder, lr_folders=low, minimum=32)
    batch = batches(images)[0]
    # Away from the border, bicubic of the crop and the crop of bicubic agree.
    expected = make_lr(batch.hr, 4)
    assert (batch.lr - expected)[..., 2:-2, 2:-2].abs().max() < 1.5 / 255
    with pytest.raises(ValueError, match=r"expected scales = \(1,\) for paired images"):
        batches(images, scales=(1.0, 0.5))
    with pytest.raises(ValueError, match="expected grain = 0 for paired images"):
        batches(images, grain=1.0)


def test_paired_folders_that_do_not_fit_are_refused(folder, tmp_path):
    low = tmp_path / "lr"
    low.mkdir()
    for path in find_images(folder)[1:]:
        write_image(low / path.name, bicubic_down(read_image(path), 4))
    with pytest.raises(ValueError, match=r"expected one LR image named like image0.png.*; got none in .*lr: rename it"):
        ImageFolder(folder, lr_folders=low)
    write_image(low / "image0.png", torch.rand(3, 7, 13))
    with pytest.raises(ImageError, match=r"expected 1/4 of the size of image0.png, 52 × 40 pixels; got 13 × 7 pixels"):
        ImageFolder(folder, lr_folders=low, strict=True)
    write_image(low / "image1x4.png", torch.rand(3, 11, 13))
    (low / "image1.png").rename(low / "image1_LR.png")
    with pytest.raises(ValueError, match=r"named like image1.png.*; got several: .*image1_LR.png, .*image1x4.png"):
        ImageFolder(folder, lr_folders=low)


def test_a_degradation_makes_the_lr_image(folder):
    def darker(hr, *, upscale, generator):
        return bicubic_down(hr, upscale) * 0.5

    batch = batches(folder, degradation=darker)[0]
    assert torch.equal(batch.lr, round_to_8bit(bicubic_down(batch.hr, 4) * 0.5))


def test_blur_noise_and_jpeg_do_what_they_say():
    image = torch.rand(3, 32, 32)
    impulse = torch.zeros(1, 33, 33)
    impulse[0, 16, 16] = 1
    blurred = gaussian_blur(impulse, 2.0)
    offsets = torch.arange(33.0) - 16
    assert abs(float((blurred[0].sum(0) * offsets**2).sum()) - 4.0) < 0.1
    assert float(blurred.sum()) == pytest.approx(1.0)
    assert (jpeg(image, quality=95) - image).abs().mean() < (jpeg(image, quality=10) - image).abs().mean()
    assert jpeg(image[:1], quality=90).shape == (1, 32, 32)
    flat = torch.full((3, 64, 64), 0.5)
    noisy = BlurNoiseJPEG(noise=(0.1, 0.1))(flat, upscale=2, generator=torch.Generator().manual_seed(0))
    assert float((noisy - 0.5).std()) == pytest.approx(0.1, rel=0.1)
    with pytest.raises(ValueError, match="expected blur to be a range"):
        BlurNoiseJPEG(blur=(2.0, 1.0))


def test_scales_shrink_before_cropping(tmp_path):
    image = torch.rand(3, 64, 64)
    write_image(tmp_path / "a.png", image)
    half = batches(tmp_path, batch_size=1, scales=(0.5,), flips=False, rotations=False)[0]
    expected = make_lr(read_image(tmp_path / "a.png"), 2)
    assert (half.hr[0] - expected).abs().max() < 1.1 / 255
    with pytest.raises(ValueError, match=r"expected scales in \(0, 1\]"):
        batches(tmp_path, scales=(2.0,))


def test_grain_is_noise_of_the_hr_crop_that_its_lr_image_has_too(tmp_path):
    write_image(tmp_path / "a.png", torch.full((3, 64, 64), 0.5))
    plain, noisy = (batches(tmp_path, batch_size=64, grain=grain)[0] for grain in (0.0, 20.0))
    assert plain.hr.std() == 0
    widths = (255 * noisy.hr).flatten(1).std(1)
    assert widths.max() < 21 and widths.min() < 1
    # Of 20·u² with u uniform the mean is 20/3, and the standard deviation 6.
    assert abs(float(widths.mean()) - 20 / 3) < 3 * 6 / 8
    assert all(torch.equal(lr, make_lr(hr, 4)) for hr, lr in zip(noisy.hr, noisy.lr, strict=True))
    assert same(noisy, batches(tmp_path, batch_size=64, grain=20.0)[0])
    shrunk = batches(tmp_path, batch_size=64, grain=20.0, scales=(0.5,))[0]
    assert (255 * shrunk.hr).flatten(1).std(1).mean() < 0.7 * widths.mean()
    with pytest.raises(ValueError, match="expected a grain of at least 0 grey levels; got nan"):
        batches(tmp_path, grain=float("nan"))


def test_folders_in_folders_split_and_fingerprint(folder, tmp_path):
    images = ImageFolder(tmp_path)
    assert [path.name for path, _ in images.pairs] == [f"image{i}.png" for i in range(5)]
    train, held_out = images.split(2, seed=1)
    assert sorted(train + held_out) == list(range(5))
    assert images.split(2, seed=1) == (train, held_out)
    before = images.fingerprint()
    assert ImageFolder(folder).fingerprint() == before
    write_image(folder / "image0.png", torch.rand(3, 40, 52), overwrite=True)
    assert ImageFolder(folder).fingerprint() != before
    with pytest.raises(ValueError, match=r"expected hold_out between 0 and 4, as there are 5 usable .*; got 5"):
        images.split(5)


def test_wrong_sizes_are_refused(folder):
    with pytest.raises(ValueError, match="expected a crop that is a multiple of 4; got 30"):
        batches(folder, crop=30)
    with pytest.raises(ValueError, match=r"multiple of processes x accumulation = 3; got 4"):
        batches(folder, accumulate=3)


def test_seeds_are_spread_and_batches_pickle(folder):
    assert len({derive_seed(a, b) for a in range(50) for b in range(50)}) == 2500
    assert same(pickle.loads(pickle.dumps(batches(folder)))[1], batches(folder)[1])
