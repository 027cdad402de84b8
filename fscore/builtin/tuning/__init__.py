"""Searching for hyper-parameters: spaces, trials, the search over them, and what it leaves in its folder."""
