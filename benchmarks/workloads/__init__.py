"""What is measured: one file a workload, each with `workloads(folder, size)`."""
