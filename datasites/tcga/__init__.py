"""From the tables hospitals have to model inputs: reading, preprocessing by public constants, federations."""
