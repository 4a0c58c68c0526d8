"""The protocols, pure: bytes, values, time and entropy in; new values and bytes out."""
