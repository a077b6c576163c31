"""What was learned: representations of images by a trained model, and what is near to what among them."""
