"""Temporal in the sandbox: the development server and a proxy that can lose answers."""
