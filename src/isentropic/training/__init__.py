"""The Trainer with the exact loss, and its callbacks."""
