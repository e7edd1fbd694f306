"""A recorded run in one file: every tensor, gradient and update of one side, its batch, its network and its recipe.

`docs/trace-format.md` describes the file. Reading one loads no framework.
"""
