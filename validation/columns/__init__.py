"""What can run a package: each is a column of the report."""
