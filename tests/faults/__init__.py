"""Faults planted in dumps of real kernels: each must give exactly one finding."""
