"""Architecture, presets, checkpoints and the embedded planner's server."""
