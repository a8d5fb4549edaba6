//! Stand-ins for the workload controllers of the controller-manager: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job and
//! CronJob.
//!
//! They do what an observer of the real ones sees, in the same order: which pods exist when, which object owns which, what
//! the status says. One loop serves all of them: it keeps what watches report, and reconciles what that concerns one object
//! at a time. Without changes it asks the API server nothing, and the same changes lead to the same requests.
//!
//! Not known: proportional scaling in the middle of a rolling update, surging DaemonSets, indexed Jobs and their pod failure and
//! success policies, schedules other than numbers and steps of minutes and hours. What a Job or CronJob asks for in vain is said in
//! a condition or an event.

mod cron_job;
mod daemon_set;
mod deployment;
mod deployment_status;
mod job;
mod pods;
mod replica_set;
mod retention;
mod revisions;
mod schedule;
mod stateful_set;
mod world;

use kube::Client;
use tokio_util::sync::CancellationToken;

use super::Clock;

/// What the controllers need.
#[derive(Clone)]
pub struct WorkloadsContext {
    /// Client to the API server, as somebody who may do what the controller-manager does.
    pub client: Client,
    /// The present time.
    pub clock: Clock,
}

/// Reconciles all workloads until `stop` is cancelled; a reconcile in flight is then dropped where it is. A later call goes on
/// from what the API says.
pub async fn run(context: WorkloadsContext, stop: CancellationToken) {
    let mut world = world::World::new(context);
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = world.work() => {}
    }
}
