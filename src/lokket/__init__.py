"""lokket: end-to-end encrypted, post-quantum messaging on a relay its users own.

Nothing is imported here: ``lokket.codec``, ``lokket.crypto`` and ``lokket.protocol`` need only the
``cryptography`` package, and importing them must not pull in the rest.
"""

__version__ = "0.1.0"
