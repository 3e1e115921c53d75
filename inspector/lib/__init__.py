"""The kernel's lists and trees followed breadth-first for many roots at once; defects come back as rows."""
