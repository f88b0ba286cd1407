"""A store looked at as a whole, for `workflow db check`."""
