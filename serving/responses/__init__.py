"""OpenAI's Responses API: items in, items and events out, conversations kept for later turns."""
