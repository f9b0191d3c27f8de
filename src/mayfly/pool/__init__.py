"""Templates, their clones, and the clones that wait ready for the next execution."""
