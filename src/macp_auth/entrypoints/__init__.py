"""What drives the domain: HTTP, the command line, the processes, and the settings from the environment."""
