"""A catalogue of what nobody should send: each case ends in a status, a reject or an abort."""
