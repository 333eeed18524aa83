"""Other people's exports: folders that other programs wrote, opened so that the parity cases can
drive them.
"""
