"""The page at `/`: a chat for people, which needs nothing from outside this server."""
