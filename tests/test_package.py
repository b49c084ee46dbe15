"""`import tlutils`: what it does to the process that imports it."""

import logging

import tlutils


def test_one_remark_on_torchao_is_left_out_and_no_other(caplog):
    logger = logging.getLogger("torch.utils._pytree")
    assert tlutils.__version__
    with caplog.at_level(logging.WARNING, logger=logger.name):
        logger.warning("Calling register_constant() on Enum subclasses is deprecated")
        logger.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
