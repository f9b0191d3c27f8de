"""What runs in the interpreters that keep state, as the user of the sandbox: each file is loaded by its language."""
