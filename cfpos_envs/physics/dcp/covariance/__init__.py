"""What single links say, read from the whole covariance of their array: bearing, power and how sure both are."""
