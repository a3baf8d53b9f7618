"""Objectives: rows -> batch -> sums of losses; one a file."""
