"""What the central unit receives and what an estimator answers: the meeting point of environments and estimators."""
