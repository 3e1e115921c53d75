"""Many vmcores: each checked in a process of its own, what they say kept as a dataset, faults clustered over all."""
