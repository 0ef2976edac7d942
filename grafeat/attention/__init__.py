"""Attention over the patch graph: intra, cross and joint layers, their rotary angles, and what is captured of them."""
