"""Several servers behind one address: Ray Serve on one machine or many, and a Triton repository."""
