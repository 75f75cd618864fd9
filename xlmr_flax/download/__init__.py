"""The files of every dataset: where they are published, their sums, and how they become the files that tasks read."""
