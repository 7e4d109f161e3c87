"""A trained network as a folder that loads by name: its files, its model card, the command. Without transformers."""
