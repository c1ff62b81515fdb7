"""A Jupyter kernel whose cells run on every MPI rank. `__main__` starts the ranks, `rank` is what each of them runs."""
