"""How good a model is: metrics, evaluation, calibration, pictures, and the model card."""
