"""Print the README's table of models from the cards.

python tools/model_table.py
"""

from __future__ import annotations

from recinet_ase.pretrained import available_ensembles, available_models, model_card
from recinet_ase.training.card import stated_error


def main() -> None:
    """One row a model."""
    headings = "model,property,unit,functional,trained on,validation MAE,always the mean".split(",")
    print(f"| {' | '.join(headings)} |")
    print("|---|---|---|---|---|---|---|")
    for name in sorted([*available_models(), *available_ensembles()]):
        card = model_card(name)
        training = card["training"]
        for at, prop in enumerate(card["properties"]):
            error, deviation = stated_error(training, card["properties"], at)
            cells = (
                f"`{name}`",
                prop,
                card["units"][at],
                card["functional"][at],
                f"{training['n_train']:,}",
                "not measured" if error is None else f"{error:.3g}",
                "" if deviation is None else f"{deviation:.3g}",
            )
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
