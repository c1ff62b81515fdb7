"""From the catalogs to what a model computes with: machines, architectures, and the plans that fit them."""
