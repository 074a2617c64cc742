"""The wheel and the sdist as they are built: what is in them, how large they are, and what an index shows of them."""

import re
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import flowsr
from benchmarks import package

ROOT = Path(flowsr.__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs the repository")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return package.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(next(path for path in built if path.suffix == ".whl")) as file:
        yield file


@pytest.fixture(scope="module")
def metadata(wheel):
    return message_from_bytes(wheel.read(f"flowsr-{flowsr.__version__}.dist-info/METADATA"))


def test_the_wheel_has_the_package_alone(wheel):
    names = [name for name in wheel.namelist() if not name.startswith(f"flowsr-{flowsr.__version__}.dist-info/")]
    here = [path for path in (ROOT / "flowsr").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sorted(names) == sorted(path.relative_to(ROOT).as_posix() for path in here)
    assert "flowsr/py.typed" in names and "flowsr/__init__.pyi" in names


def test_the_sdist_is_what_the_wheel_is_built_of(built):
    with tarfile.open(next(path for path in built if path.suffix == ".gz")) as file:
        names = {name.split("/", 1)[1]: file.getmember(name).size for name in file.getnames()}
    beside = {name for name in names if not name.startswith("flowsr/")}
    meta = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "PKG-INFO", ".gitignore"}
    assert beside == meta
    assert not [name for name, size in names.items() if size > 300_000 and not name.startswith("flowsr/weights/")]


def test_an_index_takes_them(built):
    package.check(built)


def test_what_is_too_large_is_refused(built, monkeypatch):
    monkeypatch.setattr(package, "MOST_MB", {".whl": 0.1, ".gz": 0.1})
    monkeypatch.setattr(package, "run", lambda *command: None)
    with pytest.raises(ValueError, match=r"expected at most 0.1 MB; got flowsr-.*\.whl of"):
        package.check(built)


def test_the_metadata_say_what_it_is(metadata):
    assert metadata["Version"] == flowsr.__version__ and metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11" and metadata["Keywords"]
    pythons = {line.rsplit(" ", 1)[1] for line in metadata.get_all("Classifier") if "Python :: 3." in line}
    assert pythons == {"3.11", "3.12", "3.13"}
    assert not [line for line in metadata.get_all("Classifier") if line.startswith("License")]  # the expression says it
    places = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL"))
    assert set(places) == {"Homepage", "Documentation", "Repository", "Issues", "Changelog"}
    assert all(place.startswith("https://") for place in places.values())


def test_the_description_renders_with_absolute_links_alone(metadata):
    render = pytest.importorskip("readme_renderer.markdown").render
    page = render(metadata.get_payload(decode=True).decode("utf-8"))
    assert page is not None
    links = [part.split('"', 1)[0] for part in page.replace('src="', 'href="').split('href="')[1:]]
    assert links and not [link for link in links if not link.startswith(("https://", "#"))]


def test_the_version_is_the_same_everywhere():
    """It stands in the package; those who cite it, and readers of the changelog, have it in a file of their own."""
    assert f"\nversion: {flowsr.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert flowsr.__version__ in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_are_what_lint_runs():
    hooks = re.findall(r"entry: ruff (\w+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert hooks == re.findall(r"\$\(BIN\)/ruff (\w+)", (ROOT / "Makefile").read_text())
