"""From a run to what answers elsewhere: exported, sent to a hub, served under KServe."""
