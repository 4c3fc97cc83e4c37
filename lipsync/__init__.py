"""Face and speech to frames: the options, the source, the paste, many jobs."""
