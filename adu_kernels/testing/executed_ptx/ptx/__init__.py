"""PTX as text: what is written there, before anything is executed."""
