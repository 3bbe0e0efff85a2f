"""The formats of data files, one file each; registry.READERS has them all."""
