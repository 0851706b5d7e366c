"""What training and serving cost: lifetime compute, goodput, serving by roofline, shortest training, FLOP counts."""
