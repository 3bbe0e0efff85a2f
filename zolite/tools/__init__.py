"""Programs beside training: the machine's checkup and profile, a benchmark of a step, a conversation with a model."""
