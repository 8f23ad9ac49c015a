"""The same work for this library and for what else one would take: ``nox -s peers``."""
