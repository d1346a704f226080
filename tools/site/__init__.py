"""Parts of the documentation site that are ours: Sphinx extensions, and the list of versions."""
