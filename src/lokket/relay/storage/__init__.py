"""What the relay keeps: one interface (``base``), one conformance suite (``tests/storage``)."""
