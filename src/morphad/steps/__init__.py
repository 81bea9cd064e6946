"""The steps of a line, one file each: step(settings, paths, seed), files in and files out.

`dvc repro`, the command line and cluster components call the same functions; nothing passes between steps but files.
"""
