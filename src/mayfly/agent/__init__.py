"""The agent: the guest's first process. Supervises programs for the host; standard library and frames only."""
