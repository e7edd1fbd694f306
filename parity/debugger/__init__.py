"""The debugger: both sides run in lockstep, layer by layer, and can be looked at and experimented on."""
