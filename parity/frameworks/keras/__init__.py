"""Keras: how its files are read (without any framework), lifted, loaded and run (on tensorflow)."""
