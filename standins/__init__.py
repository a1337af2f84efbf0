"""Stand-ins for the servers that the product talks to; they know nothing of the product."""
