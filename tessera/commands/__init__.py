"""The commands of the package beside those of the roles: ``tessera predict``, ``tessera analytics``."""
