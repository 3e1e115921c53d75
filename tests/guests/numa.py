"""A small guest of two nodes: folios of several memory cgroups on its LRU lists, one of the cgroups dying; at rest.

It is small so that captures of it can be kept beside the tests.
"""

from __future__ import annotations

from .extra import Extra

NUMA = Extra("numa", memory_mb=192)
