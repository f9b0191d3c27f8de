"""`mayfly bench`: the promises with figures, measured on the machine at hand."""
