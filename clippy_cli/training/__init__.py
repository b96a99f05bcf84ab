"""From a recipe to a trained model directory: loss, optimiser, data order, loop, checkpoints."""
