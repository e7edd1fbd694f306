"""The fault benchmark: nets made from a seed, right ports of them in many spellings, and ports with planted faults.

Nothing here knows how parity finds anything: it writes `.mat` files as MatConvNet does, builds Keras models as users
do, remembers what it planted, and calls `parity.compare`.
"""
