"""The road in through Redis: the list and the stream, their takers killed, and everything that may be away."""
