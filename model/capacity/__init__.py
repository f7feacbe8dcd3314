"""What a training run needs before it is launched: parameters, memory, disk, operations. Closed form, torch-free."""
