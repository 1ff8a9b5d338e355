"""Providers: what takes mail from us. `base` is the contract, `router` chooses, the others speak to the world."""
