"""How a training step is distributed over ranks: one idea per file, composed by `engine`."""
