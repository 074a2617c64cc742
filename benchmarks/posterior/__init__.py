"""How well chains mix on the posteriors of the shipped model, and the references that long ones leave."""
