"""Learning positions from labelled CSI: networks, quantised messages, fitting; for agents and estimators alike."""
