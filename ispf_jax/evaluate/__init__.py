"""What a trained network still knows: pure numeric cores around compiled model passes. Never imported by the unlearning
path."""
