"""What scripts/chaos.sh runs: schedules of faults on real processes, and what strangers cost a run."""
