"""What moves atoms: calculators by name, and relaxation with any of them."""
