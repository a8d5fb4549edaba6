//! The record of an operation cannot outgrow its store, whatever runners and their errors say.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::world::{Warehouse, block_on};
use crate::Failure;
use crate::engine::journal::{MAX_DONE, MAX_ENTRY, MAX_ERROR, MAX_EVIDENCE, MAX_INTENT};
use crate::engine::{
    Cause, Course, Direction, Effect, Engine, Entry, Journal, MemoryStore, Observation, Outcome, Plan, PlanError,
    Signals, Step, StepContext, StepRunner, StepState, settle,
};
use crate::ports::JournalStore;

/// A value that JSON writes in exactly so many bytes.
fn of_size(bytes: usize) -> Value {
    json!("x".repeat(bytes - 2))
}

/// Text of which JSON makes more bytes than it has.
fn endless() -> String {
    "\"é\n\u{1}".repeat(1000)
}

fn step(id: &str) -> Step {
    let mut step = Step::new(id, "talk", json!({}), SignedDuration::from_hours(1)).undone_by("be silent");
    step.undo_deadline = step.deadline;
    step
}

fn plan_of(steps: Vec<Step>) -> Result<Plan, PlanError> {
    Plan::new("talk", "op", json!({}), steps)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::new(1_800_000_000 + seconds, 123_456_789).unwrap()
}

/// Says what it is told to, at length.
struct Wordy {
    intent: Value,
    evidence: Value,
    effects: AtomicUsize,
}

#[async_trait]
impl StepRunner for Wordy {
    fn workflows(&self) -> &'static [&'static str] {
        &["talk"]
    }

    async fn prepare(&self, _: StepContext<'_>) -> Result<Value, Failure> {
        Ok(self.intent.clone())
    }

    async fn act(&self, _: StepContext<'_>) -> Result<Effect, Failure> {
        self.effects.fetch_add(1, Ordering::Relaxed);
        Ok(Effect::Proven(self.evidence.clone()))
    }

    async fn observe(&self, cx: StepContext<'_>) -> Result<Observation, Failure> {
        Ok(match cx.direction {
            Direction::Do => Observation::absent(),
            Direction::Undo => Observation::Done(Value::Null),
        })
    }
}

#[test]
fn an_intent_that_does_not_fit_is_refused_before_the_effect_and_evidence_after_it() {
    let cases = [
        (MAX_INTENT, MAX_EVIDENCE, None, 1),
        (MAX_INTENT + 1, MAX_EVIDENCE, Some("intent-too-large"), 0),
        (MAX_INTENT, MAX_EVIDENCE + 1, Some("evidence-too-large"), 1),
    ];
    for (intent, evidence, code, effects) in cases {
        let runner = Wordy { intent: of_size(intent), evidence: of_size(evidence), effects: AtomicUsize::new(0) };
        let (plan, store, warehouse) =
            (plan_of(vec![step("a")]).unwrap(), MemoryStore::default(), Warehouse::default());
        let engine = Engine { store: &store, runner: &runner, guard: &warehouse, clock: &warehouse };
        let outcome = block_on(async {
            store.save("op", &plan, &Journal::new(&plan, at(0)), None).await.unwrap();
            engine.run("op", &|| false).await.unwrap()
        });
        match outcome {
            Outcome::Undone(Cause::StepFailed { failure, .. }) => assert_eq!(Some(failure.code.as_str()), code),
            outcome => assert_eq!((outcome, code), (Outcome::Succeeded, None)),
        }
        assert_eq!(runner.effects.load(Ordering::Relaxed), effects, "{intent} {evidence}");
    }
}

#[test]
fn what_is_sighted_on_the_way_is_kept_if_it_fits_and_else_what_was_noted_before() {
    let plan = plan_of(vec![step("a")]).unwrap();
    for (bytes, kept) in [(MAX_EVIDENCE, true), (MAX_EVIDENCE + 1, false)] {
        let mut journal = Journal::new(&plan, at(0));
        journal.attempt(&plan.steps[0], Direction::Do, at(0));
        for sighted in [json!("before"), of_size(bytes)] {
            let seen = Observation::Pending {
                waiting_for: String::new(),
                look_again_in: SignedDuration::ZERO,
                sighted: Some(sighted),
            };
            settle(&mut journal, &plan.steps[0], Direction::Do, seen, at(1));
        }
        assert_eq!(*journal.evidence("a") == of_size(bytes), kept, "{bytes}");
        assert_eq!(*journal.evidence("a") == json!("before"), !kept, "{bytes}");
    }
}

#[test]
fn why_it_was_let_go_is_cut_like_an_error() {
    let warehouse = Warehouse::default();
    let (plan, store) = (super::world::plan(1, None), MemoryStore::default());
    let engine = Engine { store: &store, runner: &warehouse, guard: &warehouse, clock: &warehouse };
    block_on(async {
        store.save("op", &plan, &Journal::new(&plan, at(0)), None).await.unwrap();
        for _ in 0..2 {
            engine.tick("op", Signals { cancel: false, let_go: Some(endless()) }).await.unwrap();
        }
        let journal = store.load("op").await.unwrap().unwrap().journal;
        for why in [journal.let_go().unwrap(), format!("{:?}", journal.outcome).as_str()] {
            assert!(why.len() <= 2 * MAX_ERROR, "{} bytes", why.len());
        }
        assert!(json!(journal.let_go()).to_string().len() <= MAX_ERROR + 2);
    });
}

fn size(entry: &Entry) -> usize {
    serde_json::to_string(entry).unwrap().len()
}

/// Everything that can happen to one step, with the largest of everything; gives the entry at each moment.
fn largest(step: &Step) -> Vec<Entry> {
    let plan = plan_of(vec![step.clone()]).unwrap();
    let mut journal = Journal::new(&plan, at(0));
    let mut seen = Vec::new();
    let failure = |retryable| Failure { code: endless(), message: endless(), hint: endless(), retryable };
    let pending = || Observation::Pending {
        waiting_for: endless(),
        look_again_in: SignedDuration::from_secs(1),
        sighted: Some(of_size(MAX_EVIDENCE)),
    };
    for direction in [Direction::Do, Direction::Undo] {
        journal.attempt(step, direction, at(1));
        journal.mark_begun(step, of_size(MAX_INTENT));
        journal.entry_mut(&step.id).unwrap().attempt = u32::MAX;
        for observed in [pending(), Observation::Failed(failure(true)), pending(), Observation::Failed(failure(false))]
        {
            settle(&mut journal, step, direction, observed, at(2));
            seen.push(journal.entry(&step.id).unwrap().clone());
        }
    }
    seen
}

#[test]
fn the_largest_entry_that_can_come_about_fits_what_is_counted_for_it() {
    let id = "i".repeat(700);
    let entries = largest(&step(&id));
    let all = |holds: fn(&Entry) -> bool| entries.iter().any(holds);
    // It is the largest indeed: nothing that takes room is missing.
    assert!(all(|entry| entry.retry && entry.error.is_some() && !entry.waiting_for.is_empty()));
    assert!(all(|entry| entry.state == StepState::Leftover
        && entry.finished_at.is_some()
        && entry.look_again.is_some()));
    assert!(entries.iter().all(|entry| entry.evidence == of_size(MAX_EVIDENCE) && entry.intent == of_size(MAX_INTENT)));
    let most = entries.iter().map(size).max().unwrap() - id.len() - 2;
    assert!((MAX_ENTRY - 100..=MAX_ENTRY).contains(&most), "{most} bytes, and {MAX_ENTRY} are counted");
}

/// The largest entry of a step that is done.
fn done(step: &Step) -> Entry {
    let mut entry = largest(step).swap_remove(3);
    let mut journal = Journal::new(&plan_of(vec![step.clone()]).unwrap(), at(0));
    entry.state = StepState::Doing;
    journal.entries.push(entry);
    settle(&mut journal, step, Direction::Do, Observation::Done(of_size(MAX_EVIDENCE)), at(3));
    journal.entries.remove(0)
}

#[test]
fn the_largest_entry_of_a_step_that_is_done_fits_what_is_counted_for_it() {
    let id = "i".repeat(700);
    let entry = done(&step(&id));
    assert_eq!((entry.state, &entry.evidence), (StepState::Done, &of_size(MAX_EVIDENCE)));
    let bytes = size(&entry) - id.len() - 2;
    assert!((MAX_DONE - 200..=MAX_DONE).contains(&bytes), "{bytes} bytes, and {MAX_DONE} are counted");
}

#[test]
fn the_longest_plan_that_is_accepted_fits_its_store_with_the_largest_journal() {
    for undone in [1, 3, 1000] {
        let id = |at: usize| format!("a/rather/long/\"id\"/of-a-step-of-an-app-that-has-many/{at}");
        let can_be_undone = |at: usize| at.is_multiple_of(undone);
        let one = |at: usize| Step { undo: can_be_undone(at).then(|| "be silent".into()), ..step(&id(at)) };
        let steps = |count: usize| (0..count).map(one).collect::<Vec<_>>();
        let most = (1..500).take_while(|count| plan_of(steps(*count)).is_ok()).last().unwrap();
        assert!((100..499).contains(&most), "{most} steps");
        let plan = plan_of(steps(most)).unwrap();
        let mut journal = Journal::new(&plan, at(0));
        for (at, step) in plan.steps.iter().enumerate() {
            // The last one failed, and what can be undone was not.
            let unfinished = can_be_undone(at) || at + 1 == most;
            let entry = if unfinished { largest(step).into_iter().max_by_key(size).unwrap() } else { done(step) };
            journal.entries.push(entry);
        }
        let last = journal.entries.last().unwrap().clone();
        let cause = Cause::StepFailed { step: last.step, failure: last.error.unwrap() };
        journal.course = Course::Back(cause.clone());
        (journal.outcome, journal.finished_at) = (Some(Outcome::Undone(cause)), Some(at(9)));
        let [plan, journal] = [serde_json::to_string(&plan).unwrap(), serde_json::to_string(&journal).unwrap()];
        let needed = plan.len() + journal.len();
        assert!(needed <= Plan::MAX_RECORD, "{needed} bytes");
        assert!(needed > Plan::MAX_RECORD - 2 * 4096 - most * 200, "{needed} bytes: more steps would fit");
    }
}
