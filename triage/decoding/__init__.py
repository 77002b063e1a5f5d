"""Encoded data sets from outside, made safe to read: bounded before anything is built of them."""
