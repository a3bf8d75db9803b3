"""Edge-cloud cooperative positioning: networks with a real bitstream between base stations and central unit."""
