"""Both layouts of ImageNet get the standard class numbers, and sorting one into the other loses nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from neuronscope.data import class_counts, load_data, sort_imagenet
from neuronscope.data.imagenet import list_imagenet
from neuronscope.errors import DataError, StorageError

WNIDS = [f"n{10_000_000 + 7 * number}" for number in range(1000)]
"""A thousand invented classes, in standard order."""

IMAGES = {"ILSVRC2012_val_00000001.JPEG": 3, "ILSVRC2012_val_00000002.JPEG": 999, "ILSVRC2012_val_00000003.JPEG": 3}


def write_synsets(folder: Path, name: str = "synset_words.txt") -> None:
    """The list of all classes, not in order; classes 3 and 4 have the same first word."""
    words = [
        "crane, bird" if number == 3 else "crane" if number == 4 else f"thing {number}, x" for number in range(1000)
    ]
    lines = [f"{wnid} {word}" for wnid, word in zip(WNIDS, words, strict=True)]
    (folder / name).write_text("\n".join(reversed(lines)))


def write_images(folder: Path) -> None:
    """A flat folder of three images of different brightness."""
    folder.mkdir(parents=True, exist_ok=True)
    for brightness, name in enumerate(IMAGES):
        Image.new("RGB", (4, 4), (brightness * 50,) * 3).save(folder / name)


LABEL_TEXTS = {
    "labels.csv": "\ufeffimage,class,wnid,name\r\n"
    + "".join(f'{name},{number},{WNIDS[number]},"a, b"\r\n' for name, number in IMAGES.items()),
    "wnids.csv": "wnid,file\n" + "".join(f"{WNIDS[number]},val/{name}\n" for name, number in IMAGES.items()),
    "LOC_val_solution.csv": "ImageId,PredictionString\n"
    + "".join(f"{name[:-5]},{WNIDS[number]} 1 2 3 4 {WNIDS[number]} 5 6 7 8 \n" for name, number in IMAGES.items()),
    "val.txt": "".join(f"{name} {number}\n" for name, number in IMAGES.items()),
    "val-wnids.txt": "".join(f"{name} {WNIDS[number]}\n" for name, number in IMAGES.items()),
}


@pytest.mark.parametrize("form", LABEL_TEXTS)
@pytest.mark.parametrize("synsets", ["synset_words.txt", "LOC_synset_mapping.txt"])
def test_every_form_of_label_file_gives_the_same_numbers(tmp_path, form, synsets):
    """Numbers by wnid, by number, by both; names with and without folder or ending; with Windows line ends."""
    write_images(tmp_path / "images")
    write_synsets(tmp_path, synsets)
    (tmp_path / form).write_bytes(LABEL_TEXTS[form].encode())
    listing = list_imagenet(tmp_path, labels=tmp_path / form)
    assert listing.names == tuple(IMAGES)
    assert listing.labels.tolist() == [3, 999, 3]
    assert (listing.classes[2], listing.classes[3], listing.classes[4]) == (
        "thing 2",
        f"crane ({WNIDS[3]})",
        f"crane ({WNIDS[4]})",
    )


@pytest.mark.parametrize("place", ["inside", "above"])
def test_a_label_file_is_found_without_being_named(tmp_path, place):
    """In the folder of the images or the one above."""
    write_images(tmp_path / "val")
    (tmp_path / "val" if place == "inside" else tmp_path).joinpath("labels.csv").write_text(LABEL_TEXTS["labels.csv"])
    listing = list_imagenet(tmp_path / "val")
    assert listing.labels.tolist() == [3, 999, 3]
    assert listing.classes[:2] == ("tench", "goldfish")


def write_devkit(folder: Path) -> Path:
    """The development kit's own order of classes, here backwards, and an inner node after them."""
    entry = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(number + 1, WNIDS[999 - number], f"thing {999 - number}, x", 0) for number in range(1000)]
    savemat(folder / "meta.mat", {"synsets": np.array([*rows, (1001, "n99999999", "all", 9)], dtype=entry)})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(
        "".join(f"{1000 - number}\n" for number in IMAGES.values())
    )
    return folder / "ILSVRC2012_validation_ground_truth.txt"


def test_the_development_kits_numbers_are_translated(tmp_path):
    """ILSVRC numbers are an order of their own, which meta.mat explains."""
    write_images(tmp_path)
    listing = list_imagenet(tmp_path, labels=write_devkit(tmp_path))
    assert listing.labels.tolist() == [3, 999, 3]
    assert listing.classes[999] == "thing 999"


def test_the_development_kits_numbers_alone_are_refused(tmp_path):
    """Taken for class numbers they would be wrong without anyone noticing."""
    write_images(tmp_path)
    file = write_devkit(tmp_path)
    (tmp_path / "meta.mat").unlink()
    with pytest.raises(DataError, match=r"order of its own.*meta\.mat"):
        list_imagenet(tmp_path, labels=file)
    (tmp_path / "meta.mat").write_bytes(b"MATLAB 5.0 torn")
    with pytest.raises(DataError, match=r"meta\.mat.*cannot be read"):
        list_imagenet(tmp_path, labels=file)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("image,class\nILSVRC2012_val_00000001.JPEG,3\n", "2 of 3 images .* have no label"),
        ("image,class\n" + "".join(f"{name},1000\n" for name in IMAGES), "label 1000 of image .* outside the 1000"),
        ("image,class\n" + "".join(f"{name},-1\n" for name in IMAGES), "label -1 of image .* outside"),
        ("image,class\n" + "".join(f"{name},cat\n" for name in IMAGES), "label 'cat' of image"),
        ("image,wnid\n" + "".join(f"{name},n00000001\n" for name in IMAGES), "label 'n00000001' of image .* outside"),
        ("image,class,wnid\n" + "".join(f"{name},3,{WNIDS[5]}\n" for name in IMAGES), "which is 5"),
        ("image,class,wnid\nILSVRC2012_val_00000001.JPEG\n", "label '' of image"),
        ("image,wnid\nILSVRC2012_val_00000001.JPEG,\n", "no label: expected"),
        ("picture,kind\na,b\n", "columns picture, kind: expected an image column"),
        ("", "columns .none."),
        ("image,class\n", "holds no labels"),
    ],
)
def test_a_wrong_label_file_is_refused_with_the_cause(tmp_path, text, cause):
    """Each message names the file or the image, and what was expected."""
    write_images(tmp_path)
    write_synsets(tmp_path)
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=cause):
        list_imagenet(tmp_path)


def test_what_is_missing_is_said(tmp_path):
    """No folder, no images, no label file, wnids without numbers, an incomplete list of classes."""
    with pytest.raises(DataError, match="not a folder"):
        list_imagenet(tmp_path / "gone")
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match=r"no ImageNet images.*has the folders val"):
        list_imagenet(tmp_path)
    write_images(tmp_path / "val")
    with pytest.raises(DataError, match=r"no label file.*--labels"):
        list_imagenet(tmp_path / "val")
    (tmp_path / "LOC_val_solution.csv").write_text(LABEL_TEXTS["LOC_val_solution.csv"])
    with pytest.raises(DataError, match=r"wnids without class numbers.*synset_words\.txt"):
        list_imagenet(tmp_path / "val")
    (tmp_path / "synset_words.txt").write_text("n01440764 tench\n")
    with pytest.raises(DataError, match="lists 1 classes: expected ImageNet's 1000"):
        list_imagenet(tmp_path / "val")


def test_class_folders_are_numbered_by_a_list_of_classes(tmp_path):
    """A subset of the classes keeps the standard numbers."""
    for number in (999, 5):
        (tmp_path / WNIDS[number]).mkdir()
        (tmp_path / WNIDS[number] / "x.JPEG").touch()
    with pytest.raises(DataError, match="2 of ImageNet's 1000 class folders"):
        list_imagenet(tmp_path)
    write_synsets(tmp_path)
    listing = list_imagenet(tmp_path)
    assert listing.names == (f"{WNIDS[5]}/x.JPEG", f"{WNIDS[999]}/x.JPEG")
    assert listing.labels.tolist() == [5, 999]


def test_all_class_folders_need_no_list(tmp_path):
    """A thousand folders, sorted, are the standard order."""
    for wnid in WNIDS:
        (tmp_path / wnid).mkdir()
    with pytest.raises(DataError, match="hold no images"):
        list_imagenet(tmp_path)
    (tmp_path / WNIDS[998] / "x.JPEG").touch()
    assert list_imagenet(tmp_path).labels.tolist() == [998]


def contents(folder: Path) -> dict[str, bytes]:
    """Content of every image below a folder, by file name."""
    return {path.name: path.read_bytes() for path in folder.rglob("*.JPEG")}


def test_sorting_gives_the_same_data_in_class_folders_and_repeats_safely(tmp_path):
    """Labels by image are unchanged; the second call moves nothing; a plan moves nothing either."""
    write_images(tmp_path)
    write_synsets(tmp_path)
    (tmp_path / "labels.csv").write_text(LABEL_TEXTS["labels.csv"] + f"gone.JPEG,0,{WNIDS[0]},x\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "other.JPEG")
    before = contents(tmp_path)
    plan = sort_imagenet(tmp_path, action="plan")
    assert sorted(path.name for path in tmp_path.glob("*.JPEG")) == sorted(before)
    done = sort_imagenet(tmp_path)
    assert done == plan
    assert (done.moved, done.already, done.missing) == (tuple(IMAGES), (), ("gone.JPEG",))
    assert done.unlabelled == ("other.JPEG",)
    assert contents(tmp_path) == before
    with pytest.raises(DataError, match="1 images beside them"):
        list_imagenet(tmp_path)
    (tmp_path / "other.JPEG").unlink()
    again = sort_imagenet(tmp_path)
    assert again.moved == ()
    assert again.already == tuple(sorted(f"{WNIDS[number]}/{name}" for name, number in IMAGES.items()))
    listing = list_imagenet(tmp_path)
    assert {Path(name).name: label for name, label in zip(listing.names, listing.labels, strict=True)} == IMAGES


@given(st.sets(st.sampled_from(sorted(IMAGES))), st.sets(st.sampled_from(sorted(IMAGES))))
def test_sorting_completes_what_a_crash_left(tmp_path_factory, moved_before, copied_before):
    """Any subset may have been moved already, or lie in both places with the same content."""
    folder = tmp_path_factory.mktemp("crash")
    write_images(folder)
    before = contents(folder)
    (folder / "LOC_val_solution.csv").write_text(LABEL_TEXTS["LOC_val_solution.csv"])
    for name in moved_before | copied_before:
        place = folder / WNIDS[IMAGES[name]]
        place.mkdir(exist_ok=True)
        (place / name).write_bytes(before[name])
        if name in moved_before:
            (folder / name).unlink()
    done = sort_imagenet(folder)
    assert done.moved == tuple(sorted(IMAGES.keys() - moved_before))
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.JPEG")) == sorted(
        f"{WNIDS[number]}/{name}" for name, number in IMAGES.items()
    )
    assert contents(folder) == before


def test_sorting_never_overwrites_a_different_image(tmp_path):
    """It is found before anything is moved."""
    write_images(tmp_path)
    (tmp_path / "labels.csv").write_text(LABEL_TEXTS["labels.csv"])
    place = tmp_path / WNIDS[3]
    place.mkdir()
    (place / "ILSVRC2012_val_00000003.JPEG").write_bytes(b"another image")
    with pytest.raises(DataError, match="a different file lies"):
        sort_imagenet(tmp_path)
    assert (place / "ILSVRC2012_val_00000003.JPEG").read_bytes() == b"another image"
    assert len(list(tmp_path.glob("*.JPEG"))) == 3


@pytest.mark.parametrize("wnid", ["../escape", "/escape", "n1", ""])
def test_a_label_that_is_no_wnid_never_becomes_a_path(tmp_path, wnid):
    """A label file decides about folders, so it must not name others."""
    write_images(tmp_path / "val")
    (tmp_path / "val" / "labels.csv").write_text(f"image,class,wnid\n{next(iter(IMAGES))},1,{wnid}\n")
    with pytest.raises(DataError, match="no usable wnid"):
        sort_imagenet(tmp_path / "val")
    assert len(list((tmp_path / "val").glob("*.JPEG"))) == 3


def test_sorting_without_labels_or_room_is_refused(tmp_path):
    """No label file; a file where a class folder should be."""
    write_images(tmp_path)
    with pytest.raises(DataError, match="no label file"):
        sort_imagenet(tmp_path)
    (tmp_path / "labels.csv").write_text(LABEL_TEXTS["labels.csv"])
    (tmp_path / WNIDS[999]).write_text("in the way")
    with pytest.raises(StorageError, match="call again"):
        sort_imagenet(tmp_path)


def test_the_real_validation_images_have_the_standard_numbers(test_data):
    """1,300 images of 725 classes; the first is a canoe, class 472."""
    data = load_data(f"imagenet:{test_data / 'imagenet_val1300'}")
    assert len(data) == 1300
    assert len(data.classes) == 1000
    assert int((class_counts(data) > 0).sum()) == 725
    assert (data.ids[0], int(data.labels[0]), data.classes[472]) == ("ILSVRC2012_val_00000347.JPEG", 472, "canoe")
    assert data.read(0).shape == (3, 227, 227)


def test_the_real_images_sorted_have_the_same_labels(test_data, tmp_path):
    """Links to the real images, sorted into class folders: every image keeps its number."""
    source = test_data / "imagenet_val1300"
    flat = load_data(f"imagenet:{source}")
    (tmp_path / "images").mkdir()
    for name in flat.ids:
        (tmp_path / "images" / name).symlink_to(source / "images" / name)
    for name in ("labels.csv", "synset_words.txt"):
        (tmp_path / name).symlink_to(source / name)
    assert len(sort_imagenet(tmp_path).moved) == 1300
    nested = load_data(f"imagenet:{tmp_path}")
    labels = dict(zip((Path(name).name for name in nested.ids), nested.labels.tolist(), strict=True))
    assert labels == dict(zip(flat.ids, flat.labels.tolist(), strict=True))
