"""Pictures of results, drawn from their JSON alone."""
