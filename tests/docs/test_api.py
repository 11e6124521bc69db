"""All that the public API returns is public itself: exported, on the page of the API, and documented."""

import inspect
import re
import typing

import pyarrow
import pytest
import torch

import qwenvis
from house.source_files import ROOT
from made.presets import encoder
from qwenvis import comparison, jobs
from qwenvis.adapters import llama_cpp, mlx_vlm, ray, ray_data, sglang, transformers, vllm
from qwenvis.concurrency.memo import cached_property

API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
PUBLIC = {name: getattr(qwenvis, name) for name in qwenvis.__all__ if name != "__version__"}
INTERNALS = API.split("Internals")[1].split("\n#")[0]
INTERNAL, OPAQUE = (set(re.findall(f"`({name})`", INTERNALS)) for name in (r"\w+\.\w+", r"\w+"))
MODULES = (comparison, jobs, llama_cpp, transformers, vllm, sglang, ray, ray_data, mlx_vlm)
WITHOUT_ENGINE = {"qwenvis.adapters.dynamo.VisionEncoder"}  # its module imports Dynamo
OF_MODULES = {f"{module.__name__}.{name}": getattr(module, name) for module in MODULES for name in module.__all__}
IMPORTED_FOR_TYPES = {"torch": torch, "pyarrow": pyarrow, "Dataset": object}  # by type checkers only; of Ray
WALKED = {name: kind for name, kind in PUBLIC.items() if name not in OPAQUE}


def ours_in(hint):
    """The classes of the package in a type hint."""
    if isinstance(hint, type) and hint.__module__.startswith("qwenvis"):
        return {hint}
    return {kind for part in typing.get_args(hint) for kind in ours_in(part)}


def returned_by(cls):
    """Yield the name and the type of each public attribute, and of the result of each public method."""
    for name, hint in typing.get_type_hints(cls).items():
        yield name, hint
    for name, value in vars(cls).items():
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, cached_property):
            value = value.func
        value = getattr(value, "__func__", value)
        if callable(value) and not isinstance(value, type):
            known = {**getattr(inspect.unwrap(value), "__globals__", {}), **IMPORTED_FOR_TYPES}
            yield name, typing.get_type_hints(value, known).get("return")


def named(cls, name):
    return f"{cls.__name__}.{name}"


@pytest.mark.parametrize("cls", WALKED.values(), ids=WALKED)
def test_all_that_is_returned_is_public(cls):
    for name, hint in returned_by(cls):
        if not name.startswith("_") and named(cls, name) not in INTERNAL:
            assert ours_in(hint) <= set(PUBLIC.values()), named(cls, name)


@pytest.mark.parametrize("value", OF_MODULES.values(), ids=OF_MODULES)
def test_all_that_modules_return_is_public(value):
    assert value.__doc__
    hints = typing.get_type_hints(value, localns=IMPORTED_FOR_TYPES)
    assert ours_in(hints.get("return")) <= {*PUBLIC.values(), *OF_MODULES.values()}


def test_attributes_of_objects_are_public():
    """Attributes that only a constructor sets have no annotation in the class."""
    model = encoder()
    for found in (model, model.spec, model.config, model.spec.processor, model.spec.video_processor):
        known = {name for kind in type(found).__mro__ for name in vars(found) if named(kind, name) in INTERNAL}
        for name in vars(found).keys() - known - typing.get_type_hints(type(found)).keys():
            kinds = [kind for kind in type(vars(found)[name]).__mro__ if kind.__module__.startswith("qwenvis")]
            assert name.startswith("_") or not kinds or set(kinds) & set(PUBLIC.values()), name


def test_internals_are_there():
    model = encoder()
    found = {cls.__name__: each for each in (model.spec, model.spec.processor) for cls in type(each).__mro__}
    found |= {cls.__name__: model.spec.video_processor for cls in type(model.spec.video_processor).__mro__[:-1]}
    for each in INTERNAL:
        cls, name = each.split(".")
        assert hasattr(found[cls], name), each


def test_every_public_class_is_on_the_page():
    directives = re.findall(r"^::: (qwenvis\.\S+)$", API, re.MULTILINE)
    public = {**PUBLIC, **OF_MODULES}.values()
    expected = {f"{value.__module__}.{value.__name__}" for value in public if value.__module__ != "qwenvis.errors"}
    assert sorted(directives) == sorted({*expected, *WITHOUT_ENGINE, "qwenvis.errors"})


@pytest.mark.parametrize("cls", PUBLIC.values(), ids=PUBLIC)
def test_public_methods_are_documented(cls):
    assert cls.__doc__
    for name, value in vars(cls).items():
        if callable(value) and not name.startswith("_"):
            assert value.__doc__, named(cls, name)
