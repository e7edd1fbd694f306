"""How a copy of a Keras model is made otherwise: a plan of its layers, the surgery, and what it is compiled with."""
