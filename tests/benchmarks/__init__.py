"""Speed, always as a ratio against a named baseline that is run in the same call."""
