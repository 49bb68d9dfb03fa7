"""How the key of a party becomes another one: the document that the old key signs. Knows no folder of a role.

Start with ``handover.py``; :mod:`datasites.node.joining.rotating` writes and sends it.
"""
