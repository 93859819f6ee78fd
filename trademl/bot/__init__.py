"""How a stored revision decides: the same code for the pipelines' replay and for a live bot.

Everything here imports numpy and, when a graph is run, onnxruntime; nothing else.
"""
