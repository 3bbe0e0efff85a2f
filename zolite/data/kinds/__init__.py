"""The shapes that rows have, one file each: `label`, `completion`, `messages`; registry.KINDS has them all."""
