"""One vault, many callers: JSON-RPC 2.0 over a socket in the profile's folder, and a client behind it."""
