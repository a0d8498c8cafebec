"""The graph of our imports: no circle, and every package is under the rules of pyproject.toml.

`make lint` checks the direction of imports with import-linter.  Its rule against circles compares the parts
of one folder; the test here compares modules, so it also sees a module that imports its own folder.
"""

from graphlib import TopologicalSorter

import grimp

from tests.support.project import PYPROJECT, packages

ROOT_PACKAGES = PYPROJECT["tool"]["importlinter"]["root_packages"]


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph(*ROOT_PACKAGES, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 100
    TopologicalSorter(imports).prepare()  # CycleError names the circle


def test_every_package_is_linted() -> None:
    assert {*packages(), "tests"} == set(ROOT_PACKAGES)
