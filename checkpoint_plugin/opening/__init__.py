"""From a url to an open store, which several parts of a process share."""
