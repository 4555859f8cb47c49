"""No module of the package imports another in a circle, wherever the import stands."""

from __future__ import annotations

import ast
import os
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import recinet_ase

ROOT = Path(recinet_ase.__file__).parent


def test_no_imports_in_a_circle() -> None:
    graph = imports(ROOT)
    assert {"recinet_ase.cli.screen", "recinet_ase.pretrained"} <= graph.keys()
    assert "recinet_ase.io.cif_block" in graph["recinet_ase.io.cif"]
    TopologicalSorter(graph).prepare()


def test_a_circle_is_found(tmp_path: Path) -> None:
    package = tmp_path / "p"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from p.b import x\n")
    (package / "b.py").write_text("def f():\n    from p import a\n")
    with pytest.raises(CycleError):
        TopologicalSorter(imports(package)).prepare()


def imports(root: Path) -> dict[str, set[str]]:
    """For each module those that it imports: at its top, for types only, or in functions."""
    files = {}
    for folder, _, names in os.walk(root, followlinks=True):
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            parts = (root.name, *path.relative_to(root).with_suffix("").parts)
            files[".".join(parts).removesuffix(".__init__")] = path
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                graph[name] |= files.keys() & {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0 and node.module, f"{path}: a relative import"
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    graph[name] |= files.keys() & {inner if inner in files else node.module}
    return graph
