"""A run from its recipe to its last step, and everything that reads the numbers of one."""
