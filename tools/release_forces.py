"""Turn a finished force run into a shipped model with its card.

    python tools/release_forces.py runs/pes mlearn-pes --data-dir DIR

The errors in the card and the domain are measured here, on the weights as shipped. A shipped
model's own folder can be given, too.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from recinet_ase.forces.accuracy import errors_of
from recinet_ase.forces.card import write_card
from recinet_ase.forces.measure_domain import measure_domain
from recinet_ase.forces.model import ForceModel
from recinet_ase.forces.settings import ForceTrainingConfig
from recinet_ase.forces.sources import divide, read_labelled
from recinet_ase.models.files import known_fields

PRETRAINED = Path(__file__).parents[1] / "pretrained"
CAUTIONS = {
    "mlearn-pes": "trained on pure Li, Mo, Si, Ge, Cu and Ni: crystals near equilibrium, strained, "
    "with surfaces and vacancies, and molten; no mixtures, no molecules, no pressures above some "
    "20 GPa",
    "jarvis-pes": "trained on JARVIS' relaxed crystals and on copies that CHGNet labelled, "
    "strained by up to 12 % and rattled by up to 0.3 A: no surfaces, no molecules, no melts; "
    "magnetism and barriers are the teacher's",
}
DATA = {
    "mlearn-pes": "mlearn (Zuo et al., J. Phys. Chem. A 124, 731 (2020)), BSD-3; PBE, VASP",
    "jarvis-pes": "JARVIS-DFT 3D, 2021 release (Choudhary et al., npj Comput. Mater. 6, 173 "
    "(2020)), public: energies of relaxed crystals; CHGNet 0.3.0 (Deng et al., Nat. Mach. Intell. "
    "5, 1031 (2023), modified BSD): differences around them",
}
FUNCTIONAL = {"mlearn-pes": "PBE", "jarvis-pes": "OptB88vdW (minima), CHGNet's PBE (shape)"}


def settings_of(model: ForceModel) -> ForceTrainingConfig:
    """The settings that a model was trained with."""
    values = known_fields(ForceTrainingConfig, model.config.training["settings"])
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    lists["network"] = tuple((key, value) for key, value in values["network"])
    return ForceTrainingConfig(**{**values, **lists})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name", choices=sorted(DATA))
    parser.add_argument("--data-dir")
    arguments = parser.parse_args()
    name = arguments.name
    model = ForceModel.load(arguments.run)
    settings = settings_of(model)
    cells, _ = read_labelled(settings, model.config.network, arguments.data_dir)
    train, val, _ = divide(cells, settings)
    measure_domain(model, cells, train)
    about = {**model.config.training, "validation_errors": asdict(errors_of(model, cells, val))}
    model.config = replace(
        model.config, name=name, caution=CAUTIONS[name], functional=FUNCTIONAL[name], training=about
    )
    model.save(PRETRAINED / name)
    write_card(model, cells, val, PRETRAINED / name, usage=name, data=DATA[name])
    print((PRETRAINED / name / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
