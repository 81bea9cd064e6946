"""Measurements that the documentation rests on; each module is a program."""
