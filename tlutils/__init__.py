"""Transfer learning, measured: the training, measuring and telling code of the book.

One module per idea; a module imports only from layers below it (see the README). Nothing heavy is
imported here, so `import tlutils` is instant.
"""

__version__ = "0.1.0"
