"""Everything that is wrong with a concept set is found at once, with its file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from neuronscope.data.concepts import check_concepts, load_concepts


def test_a_sound_set_is_counted(broden):
    """Images, labels, pixels, label sets: against the definition, pixel by pixel."""
    report = check_concepts(f"broden:{broden}")
    concepts = load_concepts(f"broden:{broden}")
    sets = []
    for row in range(4):
        stack = concepts.masks(row).stack()
        sets += [(row, frozenset(column.tolist()) - {0}) for column in stack.reshape(len(stack), -1).T]
    deep = [len(one) for _, one in sets]
    assert (report.images, report.pixels, report.labelled) == (4, 64, sum(many > 0 for many in deep))
    assert (report.most, report.mean) == (max(deep), np.mean(deep))
    assert report.signatures == len({one for _, one in sets})
    assert report.pairs == len(set(sets))
    assert report.problems == ()
    light = next(use for use in report.uses if use.name == "traffic light")
    assert (light.images, light.pixels) == (3, 24)
    assert "4 images, 8 concepts (8 occur)" in report.text()
    assert report.text().endswith("no problems")


def test_every_problem_is_found(broden):
    """Missing, torn, of the wrong size, of the wrong mode, with unknown labels, unused, empty: all in one go."""
    images = broden / "images"
    (images / "ade20k/a_color.png").unlink()
    Image.new("RGB", (2, 2)).save(images / "ade20k/a_object.png")
    Image.new("L", (4, 4)).save(images / "ade20k/a_part_1.png")
    (images / "ade20k/a_part_2.png").write_bytes(b"no picture")
    Image.new("RGB", (4, 4), (231, 3, 0)).save(images / "ade20k/b_color.png")
    (images / "ade20k/b.jpg").write_bytes((images / "ade20k/b.jpg").read_bytes()[:200])
    index = broden / "index.csv"
    index.write_text(index.read_text().replace(";300", ";301"))
    (broden / "category.csv").write_text((broden / "category.csv").read_text() + "mood,6,6,0,0\n")
    index.write_text("\n".join(line + ("mood" if line.startswith("image") else "") for line in (
        line + "," for line in index.read_text().splitlines())))  # fmt: skip
    (broden / "c_mood.csv").write_text("code,number,name,frequency,coverage\n")
    report = check_concepts(f"broden:{broden}")
    text = report.text()
    for said in (
        "a_color.png: is not there",
        "a_object.png: is 2 x 2",
        "a_part_1.png: is a PNG of the mode L",
        "a_part_2.png: cannot be read",
        "b_color.png: holds the label 999",
        "ade20k/b.jpg",
        "the label 301",
        "concept 300 'banded' (texture) is in no image",
        "category 'mood' has no concepts",
    ):
        assert said in text, said
    assert len(report.errors) == 7
    assert report.images == 4


@pytest.mark.parametrize("file", ["index.csv", "label.csv", "category.csv"])
def test_a_missing_table_or_column_ends_in_a_report(broden, file):
    """Not in an exception."""
    (broden / file).write_text("x,y\n1,2\n")
    report = check_concepts(f"broden:{broden}")
    assert any(file in problem.file and "lacks the column" in problem.what for problem in report.errors)
    (broden / file).unlink()
    assert any("is not there" in problem.what for problem in check_concepts(f"broden:{broden}").errors)


def test_a_part_of_a_set_need_not_have_every_concept(broden):
    """With a limit nothing is said of concepts that do not occur."""
    assert check_concepts(f"broden:{broden}", limit=1, images="skip").problems == ()


def test_many_problems_are_cut_short(broden):
    """The text lists some and counts the rest."""
    for path in broden.glob("images/*/*.png"):
        path.unlink()
    report = check_concepts(f"broden:{broden}")
    assert "more" in report.text(most=2).splitlines()[-1]


def test_real_sets_are_sound(test_data):
    """COCO128 and DTD have no problems."""
    sources = [f"yolo:{test_data / 'coco128_seg/coco128-seg'}", f"classes:{test_data / 'dtd10'},texture"]
    report = check_concepts(sources, images="skip", side=56)
    assert (report.images, len(report.uses), report.problems) == (428, 81, ())
    assert report.signatures > 81
