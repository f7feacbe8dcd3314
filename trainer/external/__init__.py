"""Trainers that are installed apart (axolotl, NeMo AutoModel): one spec becomes their recipe; their run is our job."""
