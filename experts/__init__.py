"""What lip-sync experts, or lip landmarks, say of clips: in sync or not, and by how much."""
