"""An OpenAI-compatible server on the session."""
