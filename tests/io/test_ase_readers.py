"""What ASE's readers may do: nothing is run, and no other file followed, that an input names."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import resolve_name
from pathlib import Path

import pytest
from ase.io.formats import ioformats

from recinet_ase.errors import ReciNetError
from recinet_ase.io import (
    find_sources,
)
from recinet_ase.io.ase_files import REFUSED


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "%block species \n%endblock species\ninclude_file : {secret}\n"),
        ("b.acemolecule-input", "%% BasicInformation\n GeometryFilename {secret}\n%% End\n"),
        ("c.xtd", "<xml>"),
        ("do_GSR.nc", "\x89HDF"),
        ("e.aselmdb", "x"),
    ],
)
def test_formats_that_lead_elsewhere_are_refused(name: str, text: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("1\n\nH 0 0 0\n")
    (tmp_path / name).write_text(text.format(secret=secret), encoding="latin-1")
    with pytest.raises(ReciNetError, match="are not read, because it"):
        find_sources([str(tmp_path / name)])


def test_a_name_makes_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mysql_notes.txt").write_text("no structure")
    with pytest.raises(ReciNetError, match="cannot tell the format"):
        find_sources(["mysql_notes.txt"])


DANGER = {
    # Running
    *("eval", "exec", "__import__", "import_module", "os.system", "os.popen", "subprocess"),
    *("Popen", "check_call", "check_output", "pickle", "yaml", "allow_pickle"),
    # Reading something else
    *("open", "paropen", "read_text", "read_bytes", "loadtxt", "genfromtxt", "fromfile", "load"),
    *("memmap", "ZipFile", "glob", "iglob", "iterdir", "listdir", "scandir", "urlopen", "connect"),
    *("Dataset", "netcdf_file", "iread", "chdir", "environ", "getenv", "iterparse"),
}
OWN = "opens the file that it was given"
LINES = "numpy parses lines or an open file"
HARMLESS = {
    "ase.utils.iofunction": OWN,
    "ase.utils.iofunc": OWN,
    "ase.io.acemolecule.parse_geometry": OWN,
    "ase.io.acemolecule.read_acemolecule_out": OWN,
    "ase.io.cif.parse_cif_ase": OWN,
    "ase.io.res.Res": OWN,
    "ase.io.res.from_file": OWN,
    "ase.io.res.read_res": "takes the name for a pattern, and is given an escaped one",
    "ase.io.trajectory.TrajectoryReader": OWN,
    "ase.io.trajectory.TrajectoryWriter": "writes; reached by the name of a method alone",
    "ase.io.trajectory._open": OWN,
    "ase.io.vasp.read_vasp_xml": OWN,
    "ase.io.vasp.get_atomtypes": "element symbols of the POTCAR or OUTCAR beside a POSCAR",
    "ase.io.vasp.atomtypes_outpot": "looks for POTCAR and OUTCAR beside a POSCAR without symbols",
    "ase.io.abinit.read_abinit_gsr": "is given classic netCDF files alone",
    "ase.io.netcdftrajectory.NetCDFTrajectory": "is given classic netCDF files alone",
    "ase.io.netcdftrajectory._open": "is given classic netCDF files alone",
    "ase.io.cjson.read_cjson": "json.load",
    "ase.nomad.read": "json.load",
    "ase.spacegroup.spacegroup._read_datafile": "ASE's own table of space groups",
    "ase.io.cp2k._read_cp2k_dcd_frame": LINES,
    "ase.io.cp2k._read_metainfo": LINES,
    "ase.io.mustem.read_mustem": LINES,
    "ase.io.prismatic.read_prismatic": LINES,
    "ase.io.onetep._OnetepHelper": LINES,
    **{
        f"ase.io.onetep.parse_{what}": LINES
        for what in (
            *("cell", "charge", "first_cell", "first_positions", "force", "positions", "spin"),
        )
    },
}
PASSED = ("ase.io.formats", "ase.atoms", "ase.calculators.")
"""What opens the file itself, and the objects that are made and not asked for anything."""


@lru_cache
def definitions(module: str) -> tuple[dict[str, list[ast.AST]], dict[str, tuple[str, str]]]:
    """Functions and classes of a module by name, and where its other names come from."""
    loaded = importlib.import_module(module)
    defined: dict[str, list[ast.AST]] = {}
    imported = {}
    for node in ast.walk(ast.parse(inspect.getsource(loaded))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.ImportFrom):
            package = loaded.__package__ or ""
            source = resolve_name("." * node.level + (node.module or ""), package)
            for name in node.names:
                imported[name.asname or name.name] = (source, name.name)
    return defined, imported


def names_in(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """Names that are used, and whether each stands alone (it may have been imported)."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id, True
        elif isinstance(part, ast.Attribute):
            yield part.attr, False
            yield ast.unparse(part), False
        elif isinstance(part, ast.keyword) and part.arg:
            yield part.arg, False


def dangers(module: str, name: str) -> set[tuple[str, str]]:
    """Functions that a reader may reach, by whatever name, and the dangerous names in each."""
    todo, seen, found = [(module, name)], set(), set()
    while todo:
        place = todo.pop()
        if place in seen or not place[0].startswith("ase.") or place[0].startswith(PASSED):
            continue
        seen.add(place)
        defined, imported = definitions(place[0])
        if place[1] in imported:  # by a package, from one of its modules
            todo.append(imported[place[1]])
        for node in defined.get(place[1], ()):
            for used, alone in names_in(node):
                source = imported.get(used, ("", "")) if alone else ("", "")
                if used in DANGER or source in (("ase.io", "read"), ("ase.io", "iread")):
                    found.add((".".join(place), used))
                todo += [source, (place[0], used)]
    return found


def test_no_other_format_of_ase_runs_or_follows_what_it_reads() -> None:
    """A guard for releases of ASE to come: whatever can be read has a parser and no more."""
    for name, about in ioformats.items():
        if about.can_read and about.module_name.startswith("ase.") and name not in REFUSED:
            for place, used in dangers(about.module_name, about._readfunc().__name__):
                assert place in HARMLESS, (name, place, used)


# The guard does not follow readers into ASE's calculators, nor know what is no reader.
UNSEEN = {"castep-cell", "lammps-dump-binary", *(name for name in REFUSED if name not in ioformats)}
UNSEEN |= {name for name in REFUSED if name in ioformats and not ioformats[name].can_read}


@pytest.mark.parametrize("name", sorted({*REFUSED} - UNSEEN))
def test_the_guard_sees_what_is_refused(name: str) -> None:
    about = ioformats[name]
    found = dangers(about.module_name, about._readfunc().__name__)
    assert any(place not in HARMLESS for place, _ in found)
