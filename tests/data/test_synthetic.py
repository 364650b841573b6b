"""The drawn archive: its layout, its truth, its determinism, and what an interruption leaves."""

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cancernet.data.synthetic import archive as synthetic
from cancernet.data.synthetic.archive import GENERATOR, PATCH, cut_patches, synthesize
from cancernet.data.synthetic.tissue import Slide, draw_slide
from cancernet.errors import InputError

NAME = re.compile(r"(\d+)/([01])/(\d+)_idx5_x(\d+)_y(\d+)_class([01])\.png")
CASES, SEED = 4, 3


@pytest.fixture(scope="module")
def slides() -> list[Slide]:
    return [draw_slide(SEED, number) for number in range(CASES)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Drawn by two processes, whatever the machine has."""
    patch = pytest.MonkeyPatch()
    patch.setattr(synthetic, "available_cores", lambda: 2)
    patch.setattr(synthetic, "CASES_WORTH_PROCESSES", CASES)
    path = tmp_path_factory.mktemp("drawn") / "archive.zip"
    try:
        return path, synthesize(path, CASES, SEED, progress=False)
    finally:
        patch.undo()


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fixed patches a case instead of a drawing, in this process."""

    def draw(job: tuple[int, int]) -> list[synthetic.Patch]:
        case = synthetic.FIRST_CASE + job[1]
        return [(f"{case}/0/{case}_idx5_x{x}_y1_class0.png", bytes([job[0], job[1], x])) for x in (1, 51)]

    monkeypatch.setattr(synthetic, "_draw_case", draw)
    monkeypatch.setattr(synthetic, "available_cores", lambda: 1)


def test_layout_is_the_real_archives(archive: tuple[Path, int]) -> None:
    path, count = archive
    files = members(path)
    assert json.loads(files.pop("SYNTHETIC.json")) == {"generator": GENERATOR, "seed": SEED, "cases": CASES}
    assert len(files) == count
    cases = set()
    for name in files:
        match = NAME.fullmatch(name)
        assert match, name
        case, label, again, x, y, label_again = match.groups()
        assert (case, label) == (again, label_again)
        assert int(x) % PATCH == 1
        assert int(y) % PATCH == 1
        cases.add(case)
    assert len(cases) == CASES
    assert all(int(case) > 16896 for case in cases)  # the real archive's highest number
    places = [NAME.fullmatch(name).group(1, 4, 5) for name in files]  # type: ignore[union-attr]
    assert len(set(places)) == len(places)


def test_patches_are_colour_images_and_some_are_cut_by_the_slides_edge(archive: tuple[Path, int]) -> None:
    path, count = archive
    sizes = []
    for name, content in members(path).items():
        if name.endswith(".png"):
            image = Image.open(io.BytesIO(content))
            assert image.mode == "RGB"
            assert max(image.size) <= PATCH
            sizes.append(image.size)
    small = sum(size != (PATCH, PATCH) for size in sizes)
    assert 0 < small < 0.1 * count


def test_bytes_depend_on_seed_and_case_alone(archive: tuple[Path, int], slides: list[Slide]) -> None:
    """Drawn by several processes and among others, a case is the same as drawn here and on its own."""
    drawn: dict[str, bytes] = {}
    for number, slide in enumerate(slides):
        drawn |= dict(cut_patches(slide, str(synthetic.FIRST_CASE + number)))
    files = members(archive[0])
    del files["SYNTHETIC.json"]
    assert files == drawn


def test_processes_give_the_order_of_one(
    archive: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slides: list[Slide]
) -> None:
    monkeypatch.setattr(synthetic, "available_cores", lambda: 1)
    monkeypatch.setattr(synthetic, "draw_slide", lambda seed, number: slides[number])
    again = tmp_path / "again.zip"
    assert synthesize(again, CASES, SEED, progress=False) == archive[1]
    assert again.read_bytes() == archive[0].read_bytes()


def test_another_seed_draws_other_tissue(slides: list[Slide]) -> None:
    other = draw_slide(SEED + 1, 0)
    assert other.image.shape != slides[0].image.shape or (other.image != slides[0].image).any()


def test_tumour_is_connected_and_within_the_tissue(slides: list[Slide]) -> None:
    for slide in slides:
        assert not (slide.tumour & ~slide.tissue).any()
        pieces, count = ndimage.label(slide.tumour)
        size = np.bincount(pieces.ravel())[1:]
        assert count <= 4
        assert (size >= 0.25 * size.max(initial=0)).all()


def test_tumours_differ_in_extent_and_stain_differs_by_case(slides: list[Slide]) -> None:
    share = [slide.tumour.sum() / slide.tissue.sum() for slide in slides]
    assert max(share) > min(share) + 0.1
    colour = np.array([slide.image[slide.tissue].mean(axis=0) for slide in slides])
    assert (colour.std(axis=0) > 2).all()


def test_labels_and_pixels_are_those_of_the_slide(archive: tuple[Path, int], slides: list[Slide]) -> None:
    files = members(archive[0])
    for number, slide in enumerate(slides):
        found = set()
        for name, content in files.items():
            match = NAME.fullmatch(name)
            if match is None or int(match[1]) != synthetic.FIRST_CASE + number:
                continue
            x, y = int(match[4]) - 1, int(match[5]) - 1
            cell = np.s_[y : y + PATCH, x : x + PATCH]
            assert (np.asarray(Image.open(io.BytesIO(content))) == slide.image[cell]).all()
            assert int(match[2]) == (slide.tumour[cell].sum() / slide.tissue[cell].sum() > 0.5)
            found.add((x, y))
        height, width = slide.tissue.shape
        grid = {(x, y) for y in range(0, height, PATCH) for x in range(0, width, PATCH)}
        for x, y in grid - found:  # cells without tissue, and no others, are absent
            assert slide.tissue[y : y + PATCH, x : x + PATCH].mean() < synthetic.LEAST_TISSUE


def test_label_is_the_majority_of_the_tissue_not_of_the_patch() -> None:
    tissue, tumour = np.zeros((50, 107), bool), np.zeros((50, 107), bool)
    tissue[:, :20] = tumour[:, :11] = True  # 11 of 20 columns of tissue
    tissue[:, 50:100] = tumour[:, 50:75] = True  # exactly half
    tissue[:, 100:] = tumour[:, 100:] = True
    patches = cut_patches(Slide(np.zeros((50, 107, 3), np.uint8), tissue, tumour), "7")
    assert [name for name, _ in patches] == [
        "7/1/7_idx5_x1_y1_class1.png",
        "7/0/7_idx5_x51_y1_class0.png",
        "7/1/7_idx5_x101_y1_class1.png",
    ]
    assert Image.open(io.BytesIO(patches[2][1])).size == (7, 50)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["archive", "archive.zip"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError, OSError])
def test_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, failure: type[BaseException]
) -> None:
    draw = synthetic._draw_case

    def fail(job: tuple[int, int]) -> list[synthetic.Patch]:
        if job[1] == 2:
            raise failure
        return draw(job)

    monkeypatch.setattr(synthetic, "_draw_case", fail)
    with pytest.raises(InputError if failure is OSError else failure):
        synthesize(tmp_path / name, 4, 0, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_folder_and_zip_hold_the_same(tmp_path: Path) -> None:
    assert synthesize(tmp_path / "a" / "b", 4, 0, progress=False) == 8  # folders above are made
    assert synthesize(tmp_path / "a.ZIP", 4, 0, progress=False) == 8
    folder = tmp_path / "a" / "b"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files == members(tmp_path / "a.ZIP")
    with zipfile.ZipFile(tmp_path / "a.ZIP") as archive:
        assert {member.external_attr >> 16 for member in archive.infolist()} == {0o644}
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.usefixtures("quick")
def test_empty_folder_is_used_and_progress_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert synthesize(tmp_path / "empty", 3) == 6
    assert len(list((tmp_path / "empty").iterdir())) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3/3" in captured.err


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("output", "cases", "seed", "message"),
    [
        ("full", 3, 0, "not empty"),
        ("full/file.txt", 3, 0, "exists already"),
        ("full/taken.zip", 3, 0, "exists already"),
        ("full/file.txt/below", 3, 0, "file.txt"),
        ("new", 2, 0, "got 2"),
        ("new", 10000, 0, "got 10000"),
        ("new", 3, -1, "got -1"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_touched(
    tmp_path: Path, output: str, cases: int, seed: int, message: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file.txt").write_text("mine")
    (tmp_path / "full" / "taken.zip").write_text("mine")
    with pytest.raises(InputError, match=message) as caught:
        synthesize(tmp_path / output, cases, seed, progress=False)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file.txt", "full", "taken.zip"]
    assert (tmp_path / "full" / "file.txt").read_text() == "mine"
