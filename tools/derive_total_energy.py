"""Make a total-energy model from a formation-energy run.

    python tools/derive_total_energy.py runs/eform runs/etot --data-dir DIR
    python tools/derive_total_energy.py runs/a runs/a-total runs/b runs/b-total    # members

By definition total energy = formation energy + sum_i x_i mu_i, linear in composition. The
elements' energies mu are fitted to the difference of both labels on the training crystals
(residual printed), so one network serves both properties.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from recinet_ase.data.catalogue import open_dataset
from recinet_ase.data.published import JARVIS
from recinet_ase.elements import symbols
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.properties import PROPERTIES
from recinet_ase.training.provenance import clean_tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN TARGET")
    parser.add_argument("--data-dir")
    arguments = parser.parse_args()
    runs, targets = arguments.folders[::2], arguments.folders[1::2]
    if len(runs) != len(targets):
        parser.error("every run needs a target")
    records = JARVIS.records(arguments.data_dir)
    formation, total = (
        JARVIS.split(PROPERTIES[p], arguments.data_dir)
        for p in ("formation_energy", "total_energy")
    )
    ids = [i for i in total.train if i in formation.train and i in records]
    shares = np.zeros((len(ids), len(symbols())))
    for row, key in enumerate(ids):
        elements = [s.strip() for s in records[key]["atoms"]["elements"]]
        for symbol in elements:
            shares[row, symbols().index(symbol)] += 1 / len(elements)
    difference = np.array([total.train[i] - formation.train[i] for i in ids])
    fitted = np.linalg.lstsq(shares, difference, rcond=None)[0]
    residual = np.abs(difference - shares @ fitted)
    print(f"{len(ids)} crystals, mean residual {residual.mean() * 1e3:.2f} meV/atom")
    present = shares.any(axis=0)
    references = {
        symbol: round(float(mu), 5)
        for symbol, mu, seen in zip(symbols(), fitted, present, strict=True)
        if seen
    }
    clean = clean_tasks(open_dataset("jarvis", arguments.data_dir), ids)
    for run, target in zip(runs, targets, strict=True):
        derive(run, target, references, float(residual.mean()), clean)


def derive(
    run: Path, target: Path, references: dict[str, float], residual: float, clean: set[str]
) -> None:
    """Write the total-energy model of one formation-energy run.

    Args:
        run: The run's folder.
        target: Folder of the model.
        references: Energy of an atom of each element, eV.
        residual: Mean absolute residual of the fit behind them, eV/atom.
        clean: Properties whose held-out crystals the fit did not see.
    """
    model = PropertyModel.load(run)
    config, training = model.config, dict(model.config.training)
    training["derivation"] = (
        "total energy = formation energy + sum of elemental energies over the composition; the "
        "elemental energies were fitted to both labels on the training crystals (mean residual "
        f"{residual * 1e3:.2f} meV/atom), the network is that of the formation energy"
    )
    training["clean_for"] = sorted(set(training["clean_for"]) & clean)
    model.config = replace(
        config,
        name=target.name,
        properties=("total_energy",),
        references={"total_energy": references},
        training=training,
    )
    model.save(target, half=False)


if __name__ == "__main__":
    main()
