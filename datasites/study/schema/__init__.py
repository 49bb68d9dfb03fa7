"""What a consortium agrees on before anybody reads a record: the modalities, how every cell is read, the outcome.

Rule of the room: values only, public ones; nothing is computed from patients, and neither torch nor pandas is needed.
It may import what lies beside it in :mod:`datasites.study` (signing, text, data-use codes). Start reading at
:mod:`datasites.study.schema.document`.
"""
