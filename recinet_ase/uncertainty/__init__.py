"""Prediction intervals, and warnings for crystals unlike those a model was trained on."""
