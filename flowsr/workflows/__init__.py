"""Files in, files out: what each command does, one module per command, for use from Python too."""
