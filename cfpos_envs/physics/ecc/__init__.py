"""Channel state information at planar arrays: from paths to CSI, its estimation, and features of it."""
