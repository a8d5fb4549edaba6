//! Electors on one API server: whatever breaks between them and it, two never lead at once.

use std::time::Duration;

use async_trait::async_trait;
use kube_sim::faults::{Fault, Faults, Matcher, Rule};
use kube_sim::{Config, Identity, SimServer};
use tokio::time::{Instant, advance, sleep};

use super::*;

const TERM: Duration = Duration::from_secs(15);
const A_MOMENT: Duration = Duration::from_millis(1);

/// The test's time, as one machine has it.
struct Machine {
    began: Instant,
    epoch: Timestamp,
}

#[async_trait]
impl Clock for Machine {
    fn now(&self) -> Timestamp {
        self.epoch + SignedDuration::try_from(self.began.elapsed()).unwrap()
    }

    async fn sleep(&self, duration: SignedDuration) {
        sleep(duration.try_into().unwrap_or_default()).await;
    }
}

/// A server, and what breaks on the way to it. Each instance is a user of its own.
struct Contest {
    server: SimServer,
    faults: Faults,
    began: Instant,
}

impl Contest {
    fn new(seed: u64) -> Self {
        let server = SimServer::new(Config { always_allow: true, latency: Duration::ZERO, ..Config::default() });
        Self { server, faults: Faults::new(seed), began: Instant::now() }
    }

    fn elector(&self, name: &str) -> Elector {
        self.elector_with(name, TERM, 0)
    }

    /// One whose clock is some hours ahead.
    fn elector_with(&self, name: &str, term: Duration, hours: i64) -> Elector {
        let epoch: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let clock = Machine { began: self.began, epoch: epoch + SignedDuration::from_hours(hours) };
        let client = self.faults.client(&self.server, Identity::user(name));
        Elector::new(client, "default", name.into(), term.try_into().unwrap(), Arc::new(clock))
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.server.client(), "default")
    }

    /// Who the lease says holds it, and how often that has changed.
    async fn holder(&self) -> (String, i32) {
        let spec = self.api().get(NAME).await.unwrap().spec.unwrap();
        (spec.holder_identity.unwrap_or_default(), spec.lease_transitions.unwrap())
    }

    fn breaks(&self, name: &str, verb: &str, fault: Fault) {
        self.faults.add(Rule::new(Matcher::any().user(name).verb(verb), fault));
    }
}

async fn leads(elector: &mut Elector) -> bool {
    elector.round().await;
    elector.leadership.is_held()
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_over_before_the_lease_was_unchanged_for_a_whole_term_on_their_own_clock() {
    for hours in [0, 1, -1] {
        let contest = Contest::new(1);
        let (mut first, mut second) = (contest.elector("first"), contest.elector_with("second", TERM, hours));
        assert!(leads(&mut first).await);
        // How old it was when it was first seen does not count: its times are of another clock.
        advance(TERM * 4).await;
        assert!(!leads(&mut second).await);
        advance(TERM - A_MOMENT).await;
        assert!(!leads(&mut second).await, "{hours}");
        assert_eq!(contest.holder().await, ("first".into(), 0));
        advance(A_MOMENT).await;
        assert!(leads(&mut second).await, "{hours}");
        assert_eq!(contest.holder().await, ("second".into(), 1));
        assert!(!leads(&mut first).await);
    }
}

/// As two containers of one name are, whose processes all have the id 1: beside each other, or one after the other.
#[tokio::test(start_paused = true)]
async fn two_processes_of_one_name_are_two_and_the_second_waits() {
    let contest = Contest::new(1);
    let instance = || format!("windlass-operator_{}", crate::Embedding::of_this_process().instance);
    let (mut first, mut second) = (contest.elector(&instance()), contest.elector(&instance()));
    assert!(leads(&mut first).await);
    assert!(!leads(&mut second).await);
    assert!(leads(&mut first).await);
    assert!(!leads(&mut second).await);
    advance(TERM).await;
    assert!(leads(&mut second).await);
}

#[tokio::test(start_paused = true)]
async fn the_term_that_counts_is_the_holders() {
    let contest = Contest::new(1);
    let (mut first, mut second) = (contest.elector("first"), contest.elector_with("second", TERM / 5, 0));
    assert!(leads(&mut first).await);
    assert!(!leads(&mut second).await);
    advance(TERM - A_MOMENT).await;
    assert!(!leads(&mut second).await);
    advance(A_MOMENT).await;
    assert!(leads(&mut second).await);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_stops_before_anybody_may_take_over() {
    for (verb, fault) in [
        ("update", Fault::LostRequest),
        ("update", Fault::Refuse(503)),
        ("get", Fault::LostRequest),
        ("get", Fault::Refuse(500)),
    ] {
        let contest = Contest::new(1);
        let (mut first, mut second) = (contest.elector("first"), contest.elector("second"));
        assert!(leads(&mut first).await);
        assert!(!leads(&mut second).await);
        contest.breaks("first", verb, fault.clone());
        advance(TERM / 3).await;
        assert!(leads(&mut first).await, "one failure is no reason to stop: {fault:?}");
        advance(TERM / 3 - A_MOMENT).await;
        assert!(leads(&mut first).await);
        advance(A_MOMENT).await;
        assert_eq!(first.leadership.state(), GuardState::Lost("leadership".into()), "{verb} {fault:?}");
        assert!(!leads(&mut second).await, "{verb} {fault:?}");
        advance(TERM / 3).await;
        assert!(leads(&mut second).await, "{verb} {fault:?}");
        assert!(!leads(&mut first).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_renewal_met_another_write_does_not_lead_until_it_has_looked_again() {
    let contest = Contest::new(1);
    let mut first = contest.elector("first");
    assert!(leads(&mut first).await);
    contest.faults.add(Rule::new(Matcher::any().verb("update"), Fault::Refuse(409)).times(1));
    assert!(!leads(&mut first).await);
    assert!(leads(&mut first).await);
}

#[tokio::test(start_paused = true)]
async fn of_two_that_take_over_at_the_same_moment_one_leads() {
    let contest = Contest::new(1);
    let mut first = contest.elector("first");
    let (mut second, mut third) = (contest.elector("second"), contest.elector("third"));
    let nobody_yet = tokio::join!(leads(&mut second), leads(&mut third));
    assert!(nobody_yet.0 != nobody_yet.1, "of two that make the lease: {nobody_yet:?}");
    second.resign().await;
    third.resign().await;
    assert!(leads(&mut first).await);
    assert_eq!(tokio::join!(leads(&mut second), leads(&mut third)), (false, false));
    advance(TERM).await;
    let after = tokio::join!(leads(&mut second), leads(&mut third));
    assert!(after.0 != after.1, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_is_never_taken() {
    for hours in [0, 1, -1] {
        let contest = Contest::new(1);
        let (mut first, mut second) = (contest.elector("first"), contest.elector_with("second", TERM, hours));
        for _ in 0..30 {
            assert!(leads(&mut first).await, "{hours}");
            for _ in 0..5 {
                assert!(!leads(&mut second).await, "{hours}");
                advance(TERM / 15).await;
                assert!(first.leadership.is_held());
            }
        }
        assert_eq!(contest.holder().await, ("first".into(), 0));
    }
}

/// What a slow answer shows may have been written at its end: the term of a lease is counted from there.
#[tokio::test(start_paused = true)]
async fn a_look_that_took_long_does_not_count_as_one_at_its_beginning() {
    let contest = Contest::new(1);
    let (mut first, mut second) = (contest.elector("first"), contest.elector("second"));
    assert!(leads(&mut first).await);
    let slow = Fault::Latency(TERM + TERM / 3 + A_MOMENT);
    contest.faults.add(Rule::new(Matcher::any().user("second").verb("get"), slow).times(1));
    let renewing = async {
        for _ in 0..4 {
            sleep(TERM / 3).await;
            first.round().await;
        }
    };
    tokio::join!(second.round(), renewing);
    advance(TERM / 5).await;
    assert!(first.leadership.is_held());
    assert!(!leads(&mut second).await, "it leads beside the first");
}

#[tokio::test(start_paused = true)]
async fn who_resigns_hands_over_at_once() {
    let contest = Contest::new(1);
    let (mut first, mut second) = (contest.elector("first"), contest.elector("second"));
    assert!(leads(&mut first).await);
    assert!(!leads(&mut second).await);
    first.resign().await;
    assert!(!first.leadership.is_held());
    assert!(leads(&mut second).await);
    assert_eq!(contest.holder().await, ("second".into(), 1));
}

#[tokio::test(start_paused = true)]
async fn who_resigns_never_clears_a_lease_of_somebody_else() {
    let contest = Contest::new(1);
    let (mut first, mut second) = (contest.elector("first"), contest.elector("second"));
    assert!(leads(&mut first).await);
    assert!(!leads(&mut second).await);
    advance(TERM).await;
    assert!(leads(&mut second).await);
    first.resign().await;
    assert_eq!(contest.holder().await, ("second".into(), 1));

    // Written by hand, while the second does not know of it yet.
    let mut lease = contest.api().get(NAME).await.unwrap();
    lease.spec.as_mut().unwrap().holder_identity = Some("somebody".into());
    contest.api().replace(NAME, &post(), &lease).await.unwrap();
    assert!(second.leadership.is_held());
    second.resign().await;
    assert_eq!(contest.holder().await, ("somebody".into(), 1));
}

#[tokio::test(start_paused = true)]
async fn two_never_lead_at_once_whatever_breaks() {
    for seed in 0..8 {
        let contest = Contest::new(seed);
        let mut electors = [
            contest.elector_with("first", TERM, 0),
            contest.elector_with("second", TERM, 1),
            contest.elector_with("third", TERM, -1),
        ];
        let any = Matcher::any;
        contest.faults.add(Rule::new(any().verb("update"), Fault::LostReply).percent(20));
        contest.faults.add(Rule::new(any().verb("update"), Fault::LostRequest).percent(20));
        contest.faults.add(Rule::new(any().verb("get"), Fault::Refuse(503)).percent(30));
        let mut due = [Instant::now(); 3];
        let mut led = std::collections::BTreeSet::new();
        for _ in 0..4000 {
            for (elector, due) in electors.iter_mut().zip(&mut due) {
                if *due <= Instant::now() {
                    *due = Instant::now() + Duration::try_from(elector.round().await).unwrap();
                }
            }
            let leaders: Vec<&str> =
                electors.iter().filter(|one| one.leadership.is_held()).map(|one| one.identity.as_str()).collect();
            assert!(leaders.len() <= 1, "seed {seed}: {leaders:?}");
            led.extend(leaders.into_iter().map(ToOwned::to_owned));
            advance(TERM / 60).await;
        }
        assert!(led.len() > 1, "seed {seed}: only {led:?} ever led");
    }
}
