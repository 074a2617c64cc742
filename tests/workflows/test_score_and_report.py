"""Scoring files, and the page on one image: figures that agree with the library, and a page that a browser shows."""

import json
import re
from pathlib import Path

import pytest
import torch
from browser import CHROMIUM, found_by
from commands import refused, run

import flowsr
from flowsr.images import make_lr, read_image, write_image
from flowsr.likelihood import bits_per_dim, decompose, official_nll
from flowsr.workflows.report import build_report
from flowsr.workflows.score import score_file


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a <b>.png"
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 7, generator=generator), scale_factor=6)[0]
    write_image(path, smooth)
    return path


def test_a_scored_file_agrees_with_the_library(image):
    flow = flowsr.load("sr-x4-small")
    scored = score_file(flow, image, num_samples=3, seed=5, maps=True, official=True)
    assert scored.size == (36, 40) and scored.lr_source is None
    hr = read_image(image)[..., :36, :40]
    lr = make_lr(hr, 4)
    expected = bits_per_dim(flow, hr, lr, num_samples=3, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(scored.bits.variational, expected.variational)
    assert set(scored.terms.maps) == set(scored.terms.named())
    noise = torch.rand(hr.shape, generator=torch.Generator().manual_seed(5)) / 256
    assert float(scored.terms.bits_per_dim) == pytest.approx(
        float((decompose(flow, hr + noise, lr).density_bits_per_dim + 8).detach()), rel=1e-5
    )
    # The authors' x4 models count, and are given, the noise of 64 grey levels.
    coarse = hr + torch.rand(hr.shape, generator=torch.Generator().manual_seed(5)) / 64
    assert scored.official_bins == 64
    assert float(scored.official_nll) == pytest.approx(float(official_nll(flow, coarse, lr).detach()), rel=1e-5)
    json.dumps(scored.to_dict(), allow_nan=False)


def test_a_file_is_encoded_once_for_each_draw(image, monkeypatch):
    flow, passes = flowsr.load("sr-x4-small"), []
    encode = flow.transform.encode
    monkeypatch.setattr(
        flow.transform, "encode", lambda *given, **options: passes.append(1) or encode(*given, **options)
    )
    score_file(flow, image, num_samples=3, maps=True)
    assert len(passes) == 3
    score_file(flow, image, official=True)
    assert len(passes) == 3 + 1 + 3
    with pytest.raises(ValueError, match="num_samples >= 1"):
        score_file(flow, image, num_samples=0)


def test_score_on_the_command_line(image, tmp_path):
    result = run("score", image, "-n", 2, "--json", "-o", tmp_path / "out", "-q")
    assert result.exit_code == 0, result.stderr
    (record,) = json.loads(result.stdout)["images"]
    nll = record["figures"]["official_nll"]
    assert nll["value"] is None and "--official" in nll["reason"]  # costs encodings of its own
    assert record["bounds"]["num_samples"] == 2 and record["terms"]["bins"] == 256
    terms = record["terms"]
    assert sum(term["nats"] for term in terms["terms"]) == pytest.approx(terms["total_nats"], rel=1e-4)
    assert record["figures"]["bits_per_dim"]["value"] == record["bounds"]["importance_weighted"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a <b>_terms.png", "scores.json"]
    assert refused(run("score", image, "-o", tmp_path / "out"), "exists", "--force")
    table = run("score", image)
    assert "bits/dim" in table.stdout and "latent z_1" in table.stdout


def test_score_takes_lr_images(image, tmp_path):
    lr = tmp_path / "lr.png"
    hr = read_image(image)
    write_image(lr, torch.full((3, 9, 10), 0.5))
    given = json.loads(run("score", image, "--lr", lr, "--json").stdout)["images"][0]
    made = json.loads(run("score", image, "--json").stdout)["images"][0]
    assert given["bounds"]["variational"] > made["bounds"]["variational"] + 1
    write_image(lr, torch.rand(3, 5, 5), overwrite=True)
    assert refused(
        run("score", image, "--lr", lr), "expected an LR image of 1/4", "of 42 × 36 pixels; got 5 × 5 pixels"
    )
    assert hr.shape == (3, 36, 42)


def test_score_says_sizes_crops_draws_and_grey_images(tmp_path):
    generator = torch.Generator().manual_seed(3)
    write_image(tmp_path / "odd.png", torch.rand(3, 17, 22, generator=generator))
    said = run("score", tmp_path / "odd.png", "-n", 3).stdout
    assert "odd.png, 22 × 17 pixels, cropped to 20 × 16: upper bounds" in said
    assert "one draw of the noise, mean of 3" in said and "terms of the first draw of the noise" in said
    assert "(1.0 effective)" in said and "one draw dominates: the weighted bound is hardly tighter" in said
    assert "grey" not in said
    write_image(tmp_path / "grey.png", torch.rand(1, 16, 16, generator=generator))
    colours = read_image(tmp_path / "grey.png").contiguous()
    write_image(tmp_path / "colours.png", colours)  # the same pixels under the model, so the same remark
    (record,) = json.loads(run("score", tmp_path / "grey.png", "--json").stdout)["images"]
    assert record["size"] == record["file_size"] == {"height": 16, "width": 16}
    assert record["grey"] and any("not comparable with those of colour images" in text for text in record["remarks"])
    for name in ("grey.png", "colours.png"):
        assert "grey image, repeated to 3 channels: bits/dim are not" in run("score", tmp_path / name).stdout
    one = run("score", tmp_path / "odd.png").stdout
    assert "dominates" not in one and "odd.png, 22 × 17" in one


def test_a_name_that_says_lr_is_remarked_on(image, tmp_path):
    named = image.rename(tmp_path / "img_LR.png")
    note = "Note: img_LR.png is called LR but is taken for an HR image"
    assert note in run("score", named).stderr
    assert note in run("report", named, "-o", named, "--force").stderr  # refused after the remark
    assert "Note" not in run("score", named.rename(tmp_path / "img_HR.png")).stderr


def test_bad_input_leaves_nothing(image, tmp_path):
    assert refused(run("score", tmp_path / "none.png"), "does not exist")
    assert refused(run("report", image, "--model", tmp_path / "none.safetensors", "-o", tmp_path / "r.html"), "none")
    small = tmp_path / "small.png"
    write_image(small, torch.rand(3, 3, 3))
    assert refused(run("report", small, "-o", tmp_path / "r.html"), "at least 4 pixels")
    assert not (tmp_path / "r.html").exists()


def test_a_run_that_fails_writes_nothing_and_input_is_never_overwritten(image, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert refused(run("score", image, broken, "-o", tmp_path / "out"), "broken.png")
    assert not (tmp_path / "out").exists()
    assert refused(run("report", image, "-o", image, "--force"), "another file")
    assert read_image(image).shape == (3, 36, 42)


def test_report_pairs_the_lr_image_by_name(image, tmp_path):
    folder = tmp_path / "lr"
    folder.mkdir()
    write_image(folder / "another.png", torch.rand(3, 9, 10))
    write_image(folder / "b.png", torch.rand(3, 9, 10))
    assert refused(run("report", image, "--lr", folder, "-o", tmp_path / "r.html"), "one LR image named like")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    path = folder / "a <b>.png"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_image(path, torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), scale_factor=6)[0])
    result = run("report", path, "-n", 2, "-o", folder / "page.html", "-q")
    assert result.exit_code == 0, result.stderr
    return folder / "page.html"


def test_the_page_is_self_contained(page):
    text = page.read_text()
    assert "a &lt;b&gt;.png" in text and "<b>.png" not in text  # a name is text, not markup
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(sources) > 15 and all(source.startswith("data:image/png;base64,") for source in sources)
    words = re.sub(r'"data:[^"]*"', "", text)
    assert not re.search(r"\b(nan|inf)\b", words, re.IGNORECASE)
    assert "<strong>Model sr-x4-small</strong> on an image of 48 × 48 pixels;" in words
    assert "Where the weights come from" in words and "<td>recipe</td>" in words
    for heading in ("Images", "Metric cards", "What the image costs", "Maps of the terms", "Latents", "Stability"):
        assert heading in words


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_the_page(page, tmp_path):
    """All pictures load and take room, and nothing is wider than the window."""
    probe = """<script>
    window.onload = () => {
      const broken = [...document.images].filter(i => !(i.complete && i.naturalWidth > 10 && i.width > 10));
      const height = document.body.scrollHeight;
      const over = document.documentElement.scrollWidth - window.innerWidth;
      document.title = `${document.images.length} pictures, ${broken.length} broken, ${height} high, ${over} over`;
    };
    </script></body>"""
    (tmp_path / "probe.html").write_text(page.read_text().replace("</body>", probe))
    title = found_by(tmp_path / "probe.html", tmp_path)
    found = re.fullmatch(r"(\d+) pictures, (\d+) broken, (\d+) high, (-?\d+) over", title)
    assert found, title
    pictures, broken, height, over = map(int, found.groups())
    assert pictures > 15 and broken == 0 and height > 2000 and over <= 0


def test_a_report_needs_two_draws(image):
    with pytest.raises(ValueError, match="num_samples >= 2"):
        build_report(flowsr.load("sr-x4-small"), Path(image), num_samples=1)
