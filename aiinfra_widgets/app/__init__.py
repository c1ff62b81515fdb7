"""A lab as a page of its own, by Panel: the notebook's text, and its labs live, for a projector and for whoever looks along."""
