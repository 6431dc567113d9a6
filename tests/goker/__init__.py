"""GoKer kernels in Python; see README.md."""
