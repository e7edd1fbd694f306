"""What the package offers: sorted, complete, and not shadowed by a module of the same name."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import parity
from parity import errors

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(parity.__path__, "parity.") if not module.name.endswith("__main__")
)


def test_all_is_sorted_and_everything_in_it_exists():
    assert parity.__all__ == sorted(parity.__all__)
    assert all(hasattr(parity, name) for name in parity.__all__)
    assert set(parity.__all__) <= set(dir(parity))


def test_all_is_complete():
    named = {name for name in vars(parity) if not name.startswith(("_", "@"))}
    public = named - {"annotations", "TYPE_CHECKING", "Any"}
    modules = {name.split(".")[1] for name in MODULES}
    assert public - modules <= set(parity.__all__)


def test_no_module_has_the_name_of_a_function():
    # Importing parity.compare would put the module in the place of the function, from then on.
    assert not {name.split(".")[1] for name in MODULES} & {"compare", "inspect"}
    assert callable(parity.compare)
    assert callable(parity.inspect)


def test_every_error_is_exported():
    assert set(errors.__all__) <= set(parity.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        parity.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_offers(name):
    module = importlib.import_module(name)
    assert module.__doc__, "a module's first line says what it is for"
    if not hasattr(module, "__all__"):  # a file of one class, or a package without names of its own
        return
    assert len(set(module.__all__)) == len(module.__all__)
    missing = [word for word in module.__all__ if not hasattr(module, word)]
    assert missing == []
