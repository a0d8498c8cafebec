"""Packages whose public names are imported on first use."""

import importlib
import subprocess
import sys

import pytest

from ragengine.lazy_names import lazy_names

PACKAGES = ("ragengine", "ragengine_export", "ragengine_train", "ragengine_serve")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there(name: str) -> None:
    package = importlib.import_module(name)
    assert {*package.__all__} <= {*dir(package)}
    for public in package.__all__:
        assert getattr(package, public).__name__ == public
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        _ = package.nothing


def test_a_missing_module_of_another_package_is_not_explained_without_an_extra() -> None:
    get, _ = lazy_names("tests", {"anything": "nowhere_to_be_found"})
    with pytest.raises(ModuleNotFoundError):
        get("anything")


@pytest.mark.parametrize(
    ("package", "public", "missing", "who"),
    [
        ("ragengine_export", "export_checkpoint", "onnx_ir", "Exporting"),
        ("ragengine_train", "train", "torch", "Training"),
        ("ragengine_ray", "train", "ray", "Running on Ray"),
    ],
)
def test_without_its_extra_a_package_imports_and_its_names_say_what_to_install(
    package: str, public: str, missing: str, who: str
) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; import {package}\n"
        "from ragengine.errors import DependencyError\n"
        f"try: {package}.{public}\nexcept DependencyError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(
        f"{who} needs the package {missing}, which is not installed; run pip install "
    )
    assert f'[{package.removeprefix("ragengine_")}]"' in run.stdout
