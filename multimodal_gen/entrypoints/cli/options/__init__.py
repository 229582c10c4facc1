"""Options of the command line: their declaration, and where their values come from."""
