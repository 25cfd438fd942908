"""What shows a debugging session: a TensorBoard plugin. `http_api.md` beside this file says what it answers."""
