"""The pictures of the report. Matplotlib, which takes a second to import, is imported here and nowhere else."""
