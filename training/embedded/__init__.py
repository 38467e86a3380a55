"""The recipe of the embedded checkpoint: its data, its weak captions, its start, its trainings."""
