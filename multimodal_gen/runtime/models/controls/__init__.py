"""Control networks of this project's transformers."""
