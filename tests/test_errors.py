"""The tree of errors."""

from __future__ import annotations

import inspect

import pytest

from neuronscope import errors

TYPES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
BUILT_IN = {
    "InputError": ValueError,
    "UnknownName": KeyError,
    "WeightsError": ValueError,
    "DataError": ValueError,
    "ResultFileError": ValueError,
    "MissingDependency": ImportError,
    "StorageError": OSError,
    "NonFiniteActivations": ArithmeticError,
}


@pytest.mark.parametrize("kind", TYPES)
def test_every_error_is_one_of_ours_and_drawn_in_the_tree(kind):
    """One `except` catches all, and the tree at the top of the file names each."""
    assert issubclass(kind, errors.NeuronscopeError)
    assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_error_is_also_the_ordinary_kind(name):
    """Code that knows nothing of neuronscope can catch them."""
    assert issubclass(getattr(errors, name), BUILT_IN[name])


@pytest.mark.parametrize("kind", TYPES)
def test_a_message_is_shown_as_written(kind):
    """A KeyError would put it in quotes."""
    assert str(kind("layer 'x' is not in it")) == "layer 'x' is not in it"
    assert str(kind()) == kind.__name__


def test_nearest_names_are_offered_best_first_and_only_when_near():
    """A typing error finds its name; nonsense finds none."""
    assert errors.nearest("layr4", ["fc", "layer4", "layer3"]).startswith(" Closest: 'layer4'")
    assert errors.nearest("zzz", ["fc", "layer4"]) == ""
    assert errors.nearest("layer", [f"layer{i}" for i in range(9)], most=2).count("'layer") == 2


def test_a_name_that_is_not_in_its_list_is_refused():
    """The message says what there is, and what was probably meant; a name in the list passes."""
    errors.check_name("even", ("even", "odd"), "cut")
    with pytest.raises(errors.UnknownName, match=r"'evn' is not known: expected one of even, odd\. Closest: 'even'"):
        errors.check_name("evn", ("even", "odd"), "cut")
