"""Two byte formats: protobuf where libsignal dictates the bytes, TLS presentation language for ours."""
