"""What files on disk say of a checkpoint, read as data: headers and JSON only. No torch here."""
