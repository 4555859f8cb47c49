"""What relaxing first is worth: property errors before, after, and without a disturbance.

    python benchmarks/forces/relaxation.py [--model NAME | --relax-with MODULE:CLASS]
        [--limit 600] [--props formation_energy,bandgap] [--fire 20]

Validation crystals of each property are disturbed (volumes times 0.9 to 1.1, moves of 0.1 A),
predicted, relaxed, and predicted again; errors are against the labels of the crystals as JARVIS
relaxed them. The crystals themselves are relaxed, too: what is lost there is the difference of two
energy surfaces. Goal: errors after relaxation at most 15 % above those of the undisturbed.

With ``--fire N`` the evaluations that our optimiser needs are counted beside those of ASE's FIRE
(with FrechetCellFilter and FixSymmetry) on N of the disturbed crystals.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from typing import Any

import numpy as np
import torch
from ase import Atoms
from heldout import disturbed, known_elements, validation_crystals

from recinet_ase import Predictor
from recinet_ase.pretrained import default_model
from recinet_ase.properties import PROPERTIES
from recinet_ase.simulation import Relaxation, RelaxationSettings, load_calculator, relax_many


def errors(predictor: Predictor, name: str, structures: list[Any], labels: np.ndarray) -> Any:
    """Absolute errors, NaN where there is no answer ``[n]``."""
    results = predictor.predict_many(structures)
    return np.abs(np.array([r.values.get(name, np.nan) for r in results]) - labels)


def judge(
    name: str, atoms: list[Atoms], labels: np.ndarray, calculator: Any, args: argparse.Namespace
) -> None:
    """A table for one property."""
    rng = np.random.default_rng(0)
    moved = [disturbed(a, rng) for a in atoms]
    settings = RelaxationSettings(fmax=args.fmax, max_steps=args.steps)
    start = time.perf_counter()
    found = relax_many(moved, calculator, settings)
    seconds = time.perf_counter() - start
    at_rest = relax_many(atoms, calculator, settings)
    both = np.array(
        [a.atoms is not None and b.atoms is not None for a, b in zip(found, at_rest, strict=True)]
    )
    predictor = Predictor(default_model(PROPERTIES[name]), device="cpu", intervals=False)

    def picked(results: list[Any]) -> list[Any]:
        pairs = zip(results, both, strict=True)
        return [r.atoms if isinstance(r, Relaxation) else r for r, ok in pairs if ok]

    unit = next(info.unit for info in predictor.infos if info.name == name)
    rows = {
        "undisturbed": picked(atoms),
        "disturbed": picked(moved),
        "disturbed, then relaxed": picked(found),
        "undisturbed, then relaxed": picked(at_rest),
    }
    print(f"\n{name}, {both.sum()} of {len(atoms)} crystals, {unit}\n")
    print("| | mean absolute error | of the undisturbed |\n|---|---|---|")
    base = np.nan
    for label, structures in rows.items():
        mae = float(np.nanmean(errors(predictor, name, structures, labels[both])))
        base = mae if label == "undisturbed" else base
        print(f"| {label} | {mae:.4f} | {mae / base - 1:+.0%} |")
    told(found, atoms, seconds)


def told(found: list[Relaxation], atoms: list[Atoms], seconds: float) -> None:
    """How the relaxations went."""
    rest = [(r, a) for r, a in zip(found, atoms, strict=True) if r.converged]
    steps = np.array([r.steps for r, _ in rest])
    away = np.array([abs(r.atoms.get_volume() / a.get_volume() - 1) for r, a in rest])  # type: ignore[union-attr]
    print(
        f"\n{len(rest)} of {len(found)} came to rest, median {np.median(steps):.0f} steps, 90 % "
        f"{np.quantile(steps, 0.9):.0f}; {1e3 * seconds / len(found):.0f} ms a crystal; volumes "
        f"differ from JARVIS' by {np.median(away):.2%} in the median, {np.quantile(away, 0.9):.1%} "
        "in 90 %"
    )
    reasons = Counter(r.reason.split(":")[-1].strip()[:60] for r in found if r.atoms is None)
    for reason, count in reasons.most_common(5):
        print(f"  {count} x {reason}")


def against_fire(atoms: list[Atoms], calculator: Any, settings: RelaxationSettings) -> None:
    """Evaluations and lowest energies of two optimisers."""
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    rng = np.random.default_rng(0)
    moved = [disturbed(a, rng) for a in atoms]
    # What the model knows; of what it does not there is nothing to compare.
    found = relax_many(moved, calculator, settings)
    moved = [one for one, r in zip(moved, found, strict=True) if r.energy is not None]
    ours = [r for r in found if r.energy is not None]
    theirs = []
    for one in moved:
        one.calc = calculator
        one.set_constraint(FixSymmetry(one, symprec=settings.symprec))
        optimiser = FIRE(FrechetCellFilter(one), logfile=None)
        try:
            ended = optimiser.run(fmax=settings.fmax, steps=settings.max_steps)
        except Exception as error:
            print(f"FIRE on {one.symbols}: {error}")
            ended = False
        theirs.append((optimiser.nsteps + 1, ended, one.get_potential_energy() if ended else None))
    both = [
        (a.energy - e) / len(one)
        for a, (_, ended, e), one in zip(ours, theirs, moved, strict=True)
        if a.converged and ended and a.energy is not None and e is not None
    ]
    print(
        f"\n{len(moved)} crystals: {sum(r.steps + 1 for r in ours)} evaluations "
        f"({sum(r.converged for r in ours)} at rest), FIRE {sum(n for n, _, _ in theirs)} "
        f"({sum(e for _, e, _ in theirs)} at rest); energies differ by "
        f"{1e3 * float(np.median(np.abs(both))):.2f} meV/atom in the median"
    )


def main() -> None:
    """Print a table for each property."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help="shipped force model or folder, else jarvis-pes")
    parser.add_argument("--relax-with", help="any calculator of ASE's, MODULE:CLASS")
    parser.add_argument("--limit", type=int, default=600, help="crystals of each property")
    parser.add_argument("--props", default="formation_energy,bandgap")
    parser.add_argument("--most-atoms", type=int, default=200)
    parser.add_argument("--fmax", type=float, default=RelaxationSettings.fmax)
    parser.add_argument("--steps", type=int, default=RelaxationSettings.max_steps)
    parser.add_argument("--fire", type=int, default=0, metavar="N")
    parser.add_argument("--data-dir", help="data folder, else RECINET_DATA_DIR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    calculator = load_calculator(args.relax_with or args.model, "cpu")
    known = known_elements(calculator)
    for name in args.props.split(","):
        if args.limit:
            atoms, labels = validation_crystals(
                name, args.limit, args.data_dir, known, args.most_atoms
            )
            judge(name, atoms, labels, calculator, args)
    if args.fire:
        atoms, _ = validation_crystals(
            "formation_energy", args.fire, args.data_dir, known, args.most_atoms
        )
        against_fire(atoms, calculator, RelaxationSettings(args.fmax, args.steps))


if __name__ == "__main__":
    main()
