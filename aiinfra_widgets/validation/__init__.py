"""How far the models are off: published measurements, read strictly, predicted with one parameter set, compared in public."""
