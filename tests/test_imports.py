"""Every module imports, and the public names are there."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import squeezebert

MODULES = [module.name for module in pkgutil.walk_packages(squeezebert.__path__, "squeezebert.")]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_module_imports_and_says_what_it_is(name):
    assert importlib.import_module(name).__doc__


def test_public_names_resolve():
    for name in dir(squeezebert):
        assert getattr(squeezebert, name) is not None
    needs_more = {"SentenceEncoder", "SqueezeBertClassifier", "SqueezeBertRegressor"}
    assert set(squeezebert.__all__) == set(dir(squeezebert)) - needs_more
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = squeezebert.nothing
