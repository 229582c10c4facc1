"""Commands of `multimodal-gen`, a module each."""
