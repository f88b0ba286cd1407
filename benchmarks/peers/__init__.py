"""The peers, each set up as its documentation recommends, in a module of its own that is imported only in its own process."""
