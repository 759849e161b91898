"""Augmentations from a user's own file: loaded, checked, sent to other processes, and known by their code."""

import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from neuronscope.augment import augmentations, compose
from neuronscope.augment.custom import load_augmentation
from neuronscope.checkpoint import digest
from neuronscope.errors import DataError, InputError, UnknownName

CODE = """
import torch
from neuronscope.augment import Augmentation, Parameter

def fade(images, parameters):
    return images * (1 - parameters[:, 0].to(images).view(-1, 1, 1, 1))

FADE = Augmentation("fade", (Parameter("by", 0, 1, neutral=0.0),), fade, "towards black")
LATE = Augmentation("late", (), lambda images, _: images + 0.5, "too bright")
SMALL = Augmentation("small", (), lambda images, _: images[:, :, 1:], "loses a row")
TEXT = Augmentation("text", (), lambda images, _: "no images", "no images")
BROKEN = Augmentation("broken", (), lambda images, _: images @ torch.zeros(2, 2), "fails")

def below(height, width):
    def hidden(images, parameters):
        changed = images.clone()
        changed[:, :, height // 2 :] = 0
        return changed
    return Augmentation("below", (), hidden, f"the lower {height - height // 2} rows black")

def nothing(height, width):
    return None

def failing(height, width):
    raise RuntimeError("no licence")

NUMBER = 3
"""


@pytest.fixture
def code(tmp_path):
    """A file of augmentations."""
    path = tmp_path / "mine.py"
    path.write_text(CODE, encoding="utf-8")
    return path


def loaded(code, name):
    """For images of 8 x 12 pixels."""
    return load_augmentation(f"python:{code}:{name}", height=8, width=12)


def test_an_augmentation_and_a_function_that_makes_one(code):
    """Both work beside the built-in ones; the function is told the size of the images."""
    fade, below = loaded(code, "FADE"), loaded(code, "below")
    images = torch.rand(2, 3, 8, 12)
    assert torch.equal(
        fade.apply(images, torch.tensor([[0.5], [0.0]])), images * torch.tensor([0.5, 1]).view(2, 1, 1, 1)
    )
    assert below.title == "the lower 4 rows black"
    chosen = [fade, augmentations(8, 12)["hflip"], below]
    everything, order = np.ones((2, 3), dtype=bool), np.array([[0, 1, 2], [2, 1, 0]])
    changed = compose(chosen, images, np.array([[0.5], [0.0]]), everything, order)
    assert (changed[:, :, 4:] == 0).all()
    assert torch.equal(changed[0, :, :4], images[0, :, :4].flip(-1) * 0.5)


def test_a_module_by_its_name(code, monkeypatch):
    """As from the current folder, like networks."""
    monkeypatch.chdir(code.parent)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    assert load_augmentation("python:mine:FADE", height=8, width=12).name == "fade"


def test_other_code_is_another_augmentation(code):
    """The hash of the file is part of it: it prints, and a checkpoint's key changes with it."""
    first, same = loaded(code, "FADE"), loaded(code, "FADE")
    assert digest(first) == digest(same)
    assert first == same
    assert first.apply.digest in repr(first)
    code.write_text(CODE.replace("images * (1 -", "images * (0.5 -"), encoding="utf-8")
    second = loaded(code, "FADE")
    assert digest(second) != digest(first)
    assert second != first


def test_it_works_in_another_process(code):
    """A closure cannot be pickled: the other process imports the code itself."""
    below = loaded(code, "below")
    script = (
        "import pickle, sys, torch\n"
        "below = pickle.load(sys.stdin.buffer)\n"
        "print(int(below.apply(torch.ones(1, 1, 8, 12), torch.zeros(1, 0)).sum()))"
    )
    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(below), capture_output=True, check=True)
    assert done.stdout.split() == [b"48"]


def test_code_that_changed_meanwhile_is_refused(code):
    """A study must not go on with other code than it began with."""
    sent = loaded(code, "below")
    code.write_text(CODE + "# edited\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"is not what it was: expected SHA-256 .*Load the augmentation again"):
        sent.apply(torch.rand(1, 1, 8, 12), torch.zeros(1, 0))


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("FAD", UnknownName, "has no 'FAD'. Closest: 'FADE'. Expected an Augmentation, or a function"),
        ("NUMBER", InputError, "is a int: expected an Augmentation, or a function of height and width"),
        ("nothing", InputError, "returned a NoneType: expected an Augmentation. Return one"),
        ("failing", InputError, "failed: RuntimeError: no licence. It is called with height and width, here (8, 12)"),
    ],
)
def test_what_is_no_augmentation_is_refused(code, name, error, text):
    """The message says what came and what was expected."""
    with pytest.raises(error, match=re.escape(text)):
        loaded(code, name)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("LATE", DataError, "leaves the range of images: expected 0 to 1, got 0.5 to 1.5. Cut the values off with"),
        (
            "SMALL",
            InputError,
            "does not return images: expected torch.float32 of shape (1, 1, 8, 12), got torch.float32",
        ),
        ("TEXT", InputError, "expected torch.float32 of shape (1, 1, 8, 12), got str. Return one image for each"),
        ("BROKEN", InputError, "'broken' of 'python:"),
    ],
)
def test_what_makes_no_images_is_refused(code, name, error, text):
    """Shape, type and range are checked whenever it is applied, and its own errors say where they come from."""
    augmentation = loaded(code, name)
    images = torch.linspace(0, 1, 96).view(1, 1, 8, 12)
    with pytest.raises(error, match=re.escape(text)):
        augmentation.apply(images, torch.zeros(1, 0))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("python:nofile.py:FADE", "there is no Python file nofile.py"),
        ("python:no.such.package:FADE", "importing no.such.package .* failed: ModuleNotFoundError"),
        ("mine.py:FADE", "cannot read source 'mine.py:FADE': expected python:package.module:NAME"),
        ("python:FADE", "expected python:package.module:NAME or python:file.py:NAME"),
    ],
)
def test_sources_that_lead_nowhere_are_refused(source, text):
    """As for networks from Python code."""
    with pytest.raises(InputError, match=text):
        load_augmentation(source, height=8, width=8)
