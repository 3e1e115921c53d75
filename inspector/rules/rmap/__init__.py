"""Rules of the reverse map: anon_vmas, chains, interval trees, i_mmap."""
