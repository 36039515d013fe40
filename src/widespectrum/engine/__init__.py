"""How work is spread: `local` runs batches in this process."""
