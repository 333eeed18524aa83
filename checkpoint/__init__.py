"""A checkpoint's files as they lie: folder, headers, tensors. Knows no model."""
