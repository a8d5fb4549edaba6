//! Upgrades that cannot lose data: versions, plans, a durable engine, workflows and their ports.
