"""A trained model in a user's hands: predict, explain, save, export, and its card.

Start with ``model.py``, then ``frames.py``, which reads a table as the model's schema says.
"""
