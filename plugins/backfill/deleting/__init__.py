"""Sending the DELETEs of a window, each of them once, and what to do about mutations that stand still."""
