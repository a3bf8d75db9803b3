"""Edge-cloud cooperative positioning: base stations as agents report where they believe a user is, from its CSI."""
