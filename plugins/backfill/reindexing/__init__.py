"""The Job of a window: whether it may be made, finding, adopting and making it, and what its end means."""
