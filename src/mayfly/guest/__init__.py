"""The guest's side of the wall: the frames it speaks, and the host's link and calls to it."""
