"""Transfer learning, measured: the training, measuring and telling code of the book.

One module per idea; a module imports only from layers below it (see the README). Nothing heavy is
imported here, so `import tlutils` is instant.
"""
import logging

__version__ = "0.1.0"

# transformers imports torchao wherever it is installed, and torch remarks on how torchao registers its enums: nothing that a
# reader could act on.
logging.getLogger("torch.utils._pytree").addFilter(lambda record: "register_constant" not in record.getMessage())
