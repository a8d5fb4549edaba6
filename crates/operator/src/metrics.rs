//! What the operator counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Labels of ended operations.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Ended {
    pub(crate) kind: String,
    pub(crate) outcome: String,
}

/// Labels of errors.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Code {
    pub(crate) code: String,
}

/// Counters and gauges, and the registry that encodes them.
pub(crate) struct Metrics {
    pub(crate) ended: Family<Ended, Counter>,
    pub(crate) errors: Family<Code, Counter>,
    pub(crate) decisions: Counter,
    pub(crate) leader: Gauge,
    pub(crate) registry: Registry,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("windlass");
        let ended = Family::<Ended, Counter>::default();
        registry.register("operations_ended", "Operations that ended, by kind and outcome", ended.clone());
        let errors = Family::<Code, Counter>::default();
        registry.register("errors", "Reconciles that failed and are tried again, by error code", errors.clone());
        let decisions = Counter::default();
        registry.register("decisions", "Decisions of the engine that were applied", decisions.clone());
        let leader = Gauge::default();
        registry.register("leader", "1 while this instance leads", leader.clone());
        Self { ended, errors, decisions, leader, registry }
    }
}
