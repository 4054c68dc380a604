"""Run an artifact on its real runtime and compare it with the sim, tensor by tensor."""
