"""A whole world from one seed: real engines, the real relay, a virtual clock and a bad network."""
