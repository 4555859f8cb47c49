"""Turn a finished force run into a shipped model with its card.

    python tools/release_forces.py runs/pes mlearn-pes --data-dir DIR

The errors in the card are measured here, on the weights as shipped.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.units import GPa

from recinet_ase.elements import symbols
from recinet_ase.forces.data import LabelledCell, load_cells
from recinet_ase.forces.errors import errors_of
from recinet_ase.forces.model import ForceModel
from recinet_ase.forces.settings import ForceTrainingConfig
from recinet_ase.models.files import write_atomic

PRETRAINED = Path(__file__).parents[1] / "pretrained"
CAUTION = (
    "trained on pure Li, Mo, Si, Ge, Cu and Ni: crystals near equilibrium, strained, with "
    "surfaces and vacancies, and molten; no mixtures, no molecules, no pressures above some 20 GPa"
)

CARD = """# {name}

Energies, forces and stresses of Li, Mo, Si, Ge, Cu and Ni, for relaxation, dynamics, elasticity and phonons:

    from recinet_ase import ReciNetForceCalculator
    atoms.calc = ReciNetForceCalculator("{name}")

| | |
|---|---|
| data | mlearn (Zuo et al., J. Phys. Chem. A 124, 731 (2020)), BSD-3; PBE, VASP |
| split | random by configuration, seed {seed}: {train} train, {val} validation, {test} test |
| network | {parameters:,} parameters; {blocks} blocks, width {width}, cutoff {cutoff} A, waves to {k_max} 1/A |
| training | L1 on energies, forces, stresses; {stages}; {hours:.1f} h on one CPU core in all |
| zero of energy | VASP's PBE energies as in the data: only differences mean something |
| weights | BSD-3 data, weights under this package's licence (MIT) |

## Errors

Mean absolute errors on {val} validation configurations, in brackets the mean absolute deviation from the training mean (energies) or
from zero (forces, stresses). Many configurations are snapshots of the same run of dynamics, so these say how well the model
interpolates. Test errors: to be measured.

| | energy, meV/atom | forces, meV/A | stress, GPa |
|---|---|---|---|
{rows}

Against other potentials, experiments and PBE: docs/howto/forces.md, docs/howto/phonons.md.

## Where not to trust it

{caution}. Elements it never saw, and pairs of elements that it saw only apart, are refused. Free atoms and
clusters are outside of the data.
"""  # noqa: E501


def stage_text(about: dict[str, Any]) -> str:
    """A stage of training in words."""
    s = about["settings"]
    return (
        f"{s['epochs']} epochs (batch {s['batch_size']}, peak learning rate "
        f"{s['learning_rate']:g}, weight of stresses {s['stress_weight']:g} per GPa)"
    )


def element_of(cell: LabelledCell) -> str:
    return symbols()[int(cell.graph.numbers[0])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--data-dir")
    arguments = parser.parse_args()
    model = ForceModel.load(arguments.run)
    settings = ForceTrainingConfig.load(arguments.run / "training.json")
    cells = load_cells(settings, model.config.network, arguments.data_dir)
    errors = errors_of(model, cells.val)
    about = {**model.config.training, "validation_errors": asdict(errors)}
    about["train_ids"] = sorted(cell.id for cell in cells.train)
    for key in ("train", "val", "test"):
        about["validation" if key == "val" else key] = len(getattr(cells, key))
    model.config = replace(model.config, name=arguments.name, caution=CAUTION, training=about)
    model.save(PRETRAINED / arguments.name)
    stages = [about]
    while "start" in stages[0]:
        stages.insert(0, stages[0]["start"])
    rows = []
    means = {}
    for z in model.config.elements:
        energies = [c.energy / len(c.graph.numbers) for c in cells.train if z in c.graph.numbers]
        means[symbols()[z]] = float(np.mean(energies))
    for element in [*errors.by_element, "all"]:
        found = errors.by_element.get(element, (errors.energy, errors.forces, errors.stress))
        some = [c for c in cells.val if element in ("all", element_of(c))]
        spread = (
            1e3 * np.mean([abs(c.energy / len(c.forces) - means[element_of(c)]) for c in some]),
            1e3 * np.mean(np.abs(np.concatenate([c.forces for c in some]))),
            np.mean([np.abs(c.stress).mean() for c in some]) / GPa,
        )  # fmt: skip
        digits = (1, 0, 2)
        cells_text = [
            f"{f:.{d}f} ({s:.{d}f})" for f, s, d in zip(found, spread, digits, strict=True)
        ]
        rows.append(f"| {element} | {' | '.join(cells_text)} |")
    card = CARD.format(
        name=arguments.name, seed=settings.split_seed, train=len(cells.train), val=len(cells.val),
        test=len(cells.test), parameters=sum(p.numel() for p in model.network.parameters()),
        **{k: getattr(model.config.network, k) for k in ("blocks", "width", "cutoff", "k_max")},
        stages="; then ".join(map(stage_text, stages)), rows="\n".join(rows),
        hours=sum(stage["hours"] for stage in stages),
        caution=CAUTION[0].upper() + CAUTION[1:],
    )  # fmt: skip
    write_atomic(PRETRAINED / arguments.name / "README.md", card.encode())
    print(card)


if __name__ == "__main__":
    main()
