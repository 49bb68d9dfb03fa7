"""The hospital's side: contract, data, PySyft node, review, training worker, reports; and the keyholder."""
