"""Models that enlarge pictures: their files."""
