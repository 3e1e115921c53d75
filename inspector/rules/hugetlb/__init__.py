"""Rules of hugetlb."""
