"""From a url to an open store, which several parts of a process share; how its runs are listed, begin, are held, and end."""
