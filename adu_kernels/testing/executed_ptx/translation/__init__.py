"""PTX instructions → Python over numpy arrays that hold one value per thread."""
