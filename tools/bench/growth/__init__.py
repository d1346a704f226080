"""How a token's cost and the start grow with what there is of keys, scopes, connections and plugins."""
