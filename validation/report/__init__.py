"""The verdict of a run, as a document and in the forms that people and machines read."""
