"""What one cell means: a number in the schema's unit, a level of a category, an age between two dates, or nothing.

Rule of the room: every cell is counted once, as understood, missing or refused. Words are compared whole; a number is a
number with nothing before or behind it but a unit that the schema knows. Whole pieces of a column are read at once
where cells are plain; what is left is read word by word, each spelling once. Start reading at
:mod:`datasites.data.reading.cells.numbers`.
"""
