"""Keys and primitives. Knows no protocol; wraps ``cryptography`` and checks what it does not check."""
