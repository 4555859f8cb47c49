"""``recinet models``: what is shipped and what it predicts."""

from __future__ import annotations

import click

from recinet_ase.cli.common import Joined, StrictCommand, one_line_errors


@click.command(cls=StrictCommand)
@click.option("--props", cls=Joined, help="Only models of these, e.g. bandgap,ehull.")
@one_line_errors
def models(props: str | None) -> None:
    """List the shipped models: property, unit, functional, data, validation error."""
    from recinet_ase.pretrained import (
        available_ensembles,
        available_force_models,
        available_models,
        model_card,
    )
    from recinet_ase.stability.references import references_for

    rows = [("model", "property", "unit", "functional", "training data", "validation MAE")]
    for name in sorted([*available_models(), *available_ensembles()]):
        card = model_card(name)
        training = card.get("training", {})
        others = training.get("members", ())
        for at, prop in enumerate(card["properties"]):
            error = training.get("validation", {}).get(prop, {}).get("mae")
            error = training.get("validation_mae", error) if at == 0 else error
            rows.append(
                (
                    name,
                    prop,
                    card["units"][at],
                    card["functional"][at] if card["functional"] else "",
                    f"{training.get('dataset', '')}, {training.get('n_train', '?')} crystals"
                    + (f", mean of {1 + len(others)} networks" if others else ""),
                    f"{error:.4f}" if isinstance(error, float) else "not measured",
                )
            )
            references = references_for(rows[-1][3]) if prop == "formation_energy" else None
            if references is not None:
                source = f"computed, known phases of {references}"
                rows.append((name, "ehull", "eV/atom", rows[-1][3], source, "as above"))
    for name in available_force_models():
        card = model_card(name)
        training = card["training"]
        rows.append(
            (
                name,
                "energy, forces, stress",
                "eV, eV/A, eV/A^3",
                card["functional"],
                f"{training['dataset']}, {training['train']} cells",
                f"{training['validation_errors']['forces'] / 1e3:.3f} eV/A",
            )
        )
    if props is not None:
        from recinet_ase.properties import parse_properties

        wanted = {info.name for info in parse_properties(props)}
        rows = rows[:1] + [row for row in rows if row[1] in wanted]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
