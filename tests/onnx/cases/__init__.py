"""Cases for every function of keras.ops and every layer of keras.layers, and what runs them."""
