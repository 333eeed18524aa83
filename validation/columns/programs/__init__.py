"""Programs that other Pythons run by path; they import nothing of this project."""
