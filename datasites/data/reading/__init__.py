"""One hospital's tables, read by a study's schema: what every cell means, who each row is, and what was not understood.

Rule of the room: nothing is dropped in silence. A cell is understood, missing or refused, and each is counted in the
reading report, which stays at the hospital. It may import :mod:`datasites.study.schema` and what lies beside it in
:mod:`datasites.data`. Start reading at :mod:`datasites.data.reading.hospital`.
"""
