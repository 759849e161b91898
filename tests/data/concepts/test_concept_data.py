"""Choosing from concept sets and putting them together."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from neuronscope.data.concepts import CONCEPT_SOURCES, ConceptOptions, combine, load_concepts
from neuronscope.data.concepts.sources import OPTIONS
from neuronscope.errors import DataError, InputError, UnknownName
from neuronscope.preprocessing import Preprocess


@pytest.fixture
def folders(tmp_path):
    """Class folders that share the name `red` (a texture), and an image name, with nothing else."""
    folder = tmp_path / "classes"
    for name in ("red/a.png", "banded/b.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 7).save(folder / name)
    return folder


def test_combined_sets_merge_equal_concepts(broden, folders):
    """Same name and category: one concept; same name, other category: two. Images follow one another."""
    parts = [load_concepts(f"broden:{broden}"), load_concepts(f"classes:{folders},texture")]
    both = combine(parts)
    assert len(both) == 6
    assert [c.number for c in both.concepts] == list(range(1, len(both.concepts) + 1))
    banded = both.find("banded")
    assert (banded.frequency, banded.categories) == (2, (("texture", 2),))
    assert both.find("red", category="color") != both.find("red", category="texture")
    with pytest.raises(UnknownName, match=r"2 concepts.*color.*texture"):
        both.find("red")
    for row in range(4):
        old, new = parts[0].masks(row), both.masks(row)
        for concept in parts[0].concepts:
            assert (
                old.mask(concept.number) == new.mask(both.find(concept.raw, category=concept.category).number)
            ).all()
    assert both.masks(4).numbers().tolist() == [banded.number]
    assert (both.images.read(4) == 7).all()


def test_combined_images_are_annotated_for_their_own_categories(broden, folders):
    """A texture folder says nothing about objects."""
    both = load_concepts([f"broden:{broden}", f"classes:{folders},texture"])
    texture, item = both.categories.index("texture"), both.categories.index("object")
    assert both.annotated[4:, texture].all()
    assert not both.annotated[4:, item].any()
    assert both.splits == ("train", "val", "train", "val", "", "")
    assert pickle.loads(pickle.dumps(both)).masks(4).whole.tolist() == both.masks(4).whole.tolist()  # noqa: S301 ours


def test_choices_from_several_sources(broden, folders):
    """Categories and splits are chosen in the sources that have them; a limit is shared evenly."""
    sources = [f"broden:{broden}", f"classes:{folders},texture", "digits"]
    chosen = load_concepts(sources, categories=["color", "stroke"], side=4)
    assert chosen.categories == ("color", "stroke")
    assert len(chosen) == 3 + 719
    assert len(load_concepts(sources, split="val")) == 2
    assert load_concepts(sources, limit=6).annotated[:, 0].sum() <= 2
    assert len(load_concepts(sources, limit=6)) == 6
    with pytest.raises(UnknownName, match=r"no category 'strokes'.*'stroke'"):
        load_concepts(sources, categories=["color", "strokes"])


def test_images_of_the_same_name_keep_apart(folders):
    """By the number of their set."""
    both = combine([load_concepts(f"classes:{folders}"), load_concepts(f"classes:{folders}")])
    assert both.images.ids == ("0/banded/b.png", "0/red/a.png", "1/banded/b.png", "1/red/a.png")
    assert len(both.concepts) == 2


def test_taking_rows_takes_everything_of_them(broden):
    """Images, masks, annotated categories and splits; the fingerprint tells."""
    concepts = load_concepts(f"broden:{broden}")
    taken = concepts.take([2, 0])
    assert taken.images.ids == ("dtd/c.jpg", "ade20k/a.jpg")
    assert (taken.masks(1).maps == concepts.masks(0).maps).all()
    assert (taken.annotated == concepts.annotated[[2, 0]]).all()
    assert taken.splits == ("train", "train")
    assert taken.fingerprint not in (concepts.fingerprint, concepts.take([0, 2]).fingerprint)
    with pytest.raises(InputError, match="row 4"):
        concepts.take([4])
    with pytest.raises(InputError, match="row -1"):
        concepts.masks(-1)


def test_masks_follow_the_networks_crop_and_the_wanted_side(broden):
    """Seen through the middle half, a map of two halves is still one of two halves; other sides are other sets."""
    concepts = load_concepts(f"broden:{broden}")
    cropped = concepts.seen_by(Preprocess(resize=8, crop=(8, 4))).at((2, 4))
    left = np.array([[True, True, False, False]] * 2)
    assert (cropped.masks(0).mask(2) == left).all()
    assert len({concepts.fingerprint, cropped.fingerprint, concepts.at(7).fingerprint}) == 3
    with pytest.raises(InputError, match="side is 0"):
        concepts.at(0)


def test_categories_of_any_source_can_be_chosen():
    """Concepts of others vanish from the masks, too."""
    strokes = load_concepts("digits", categories=["stroke"], limit=5)
    assert set(strokes.masks(0).numbers()) <= {1, 2, 3, 4}
    assert strokes.masks(0).whole.size == 0


def test_unknown_sources_and_options_are_refused(broden):
    """With what would do."""
    with pytest.raises(UnknownName, match=r"'brodn' is no source.*'broden'"):
        load_concepts("brodn:x")
    with pytest.raises(InputError, match="has no option encoding: expected subset, ties"):
        load_concepts(f"broden:{broden}", options=ConceptOptions(encoding="index"))
    with pytest.raises(DataError, match="not there"):
        load_concepts("broden:nowhere")
    with pytest.raises(InputError, match=r"0 parts.*expected coco:IMAGES,JSON"):
        load_concepts("coco:")
    with pytest.raises(InputError, match="limit is 0"):
        load_concepts("digits", limit=0)
    with pytest.raises(InputError, match="nothing to combine"):
        combine([])
    assert set(OPTIONS) == set(CONCEPT_SOURCES)
