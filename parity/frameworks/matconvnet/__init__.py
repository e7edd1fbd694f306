"""MatConvNet: MAT files lifted into a network and a recipe, and its layers run on torch."""
