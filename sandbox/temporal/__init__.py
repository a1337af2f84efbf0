"""Temporal part of the sandbox: dev server, a worker that reindexes like the real one, faults on demand."""
