"""The two databases: from a url to connections, and whole transactions that are done or not."""
