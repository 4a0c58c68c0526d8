"""The relay: keeps ciphertext until it is delivered, then deletes it. Sees no key and no plaintext."""
