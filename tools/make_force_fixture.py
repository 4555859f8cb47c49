"""Two validation cells of each element for the regression test of the force model.

python tools/make_force_fixture.py --data-dir DIR
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

from recinet_ase.data.mlearn import ELEMENTS, MLearn
from recinet_ase.data.splits import SplitRule
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.pretrained import model_card

TARGET = Path(__file__).parents[1] / "tests" / "fixtures" / "mlearn.json.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    settings = model_card("mlearn-pes")["training"]["settings"]
    dataset = MLearn(settings["dataset"], parser.parse_args().data_dir)
    rule = SplitRule.parse("random", settings["split_seed"])
    val = set(dataset.split(dataset.info(dataset.properties[0]), rule).val)
    records = []
    for element in ELEMENTS:
        found = [c for c in dataset.configurations() if c.id in val and c.id.startswith(element)]
        for c in sorted(found, key=lambda c: (len(c.forces), c.id))[:: len(found) - 1]:
            atoms = to_crystal(c.structure).to_ase()
            records.append(
                {
                    "id": c.id,
                    "elements": list(atoms.symbols),
                    "positions": atoms.positions.round(7).tolist(),
                    "lattice": atoms.cell.array.round(7).tolist(),
                    "energy": c.energy * len(atoms),
                    "forces": c.forces.round(6).tolist(),
                }
            )
    # No time of writing, so that the same cells give the same bytes.
    TARGET.write_bytes(gzip.compress(json.dumps(records).encode(), mtime=0))
    print(f"{len(records)} cells, {TARGET.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
