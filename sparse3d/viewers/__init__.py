"""Pictures of what goes in and what comes out. Viewers take arrays, not models or data sets."""
