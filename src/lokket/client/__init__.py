"""The asyncio shell around the engine: vault, transport, driver, Client. Does I/O, decides nothing."""
