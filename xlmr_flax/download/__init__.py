"""Downloads datasets: the table of published files with their checksums, and their conversion to the tasks' files."""
