"""Real processes, killed by SIGKILL at random moments, on real databases."""
