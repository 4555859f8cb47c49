"""Print the README's table of models from the cards.

python tools/model_table.py
"""

from __future__ import annotations

from recinet_ase.pretrained import available_ensembles, available_models, model_card


def main() -> None:
    """One row a model."""
    headings = "model,property,unit,functional,trained on,validation MAE,always the mean".split(",")
    print(f"| {' | '.join(headings)} |")
    print("|---|---|---|---|---|---|---|")
    for name in sorted([*available_models(), *available_ensembles()]):
        card = model_card(name)
        training = card["training"]
        cells = (
            f"`{name}`",
            card["properties"][0],
            card["units"][0],
            card["functional"][0],
            f"{training['n_train']:,}",
            f"{training['validation_mae']:.3g}",
            f"{training['validation_mad']:.3g}",
        )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
