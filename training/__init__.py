"""How models/tiny is made: a rendered world, a teacher, and three stages of training."""
