"""The client's brain: events in, effects out, one transaction each. Knows no socket, clock or file."""
