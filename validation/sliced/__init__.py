"""The first layers of a package alone, for models that do not fit."""
